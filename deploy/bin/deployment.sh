# A deployment through CodeDeploy, for release and rollback: scaling rests
# while it runs, and is as it was on every way out.  Sourced after common.sh.
# shellcheck shell=sh disable=SC2034,SC2154

deployment=
suspended=

scalable()
{
	action=$1
	shift
	set -- application-autoscaling "$action" --service-namespace ecs "$@"
	[ "$action" = register-scalable-target ] || { ask "$@"; return; }
	change "$@" --scalable-dimension ecs:service:DesiredCount \
	    --resource-id "service/$prefix/$prefix-service"
}

# A scaling event during a deployment can leave a wrong count.
scaling_suspend()
{
	before=$(scalable describe-scalable-targets --resource-ids \
	    "service/$prefix/$prefix-service" |
	    jq -c '.ScalableTargets[0].SuspendedState // {
		DynamicScalingInSuspended: false,
		DynamicScalingOutSuspended: false,
		ScheduledScalingSuspended: false}')
	[ -n "$before" ] || fail "the scaling cannot be read"
	suspended=yes
	scalable register-scalable-target --suspended-state \
	    "DynamicScalingInSuspended=true,DynamicScalingOutSuspended=true,ScheduledScalingSuspended=true" \
	    >/dev/null || fail "scaling cannot be suspended"
}

scaling_restore()
{
	[ -n "$suspended" ] || return 0
	suspended=
	scalable register-scalable-target --suspended-state "$before" \
	    >/dev/null && return
	say "SCALING IS STILL SUSPENDED: register-scalable-target $before"
	return 1
}

# Interrupted: back to what was, then leave.
interrupted()
{
	trap '' HUP INT TERM
	if [ -n "$deployment" ]; then
		say "interrupted: stopping $deployment"
		deployment_stop "$deployment" || true
	fi
	exit 130
}

leave()
{
	status=$?
	trap - EXIT
	scaling_restore || status=1
	exit "$status"
}

guard()
{
	trap leave EXIT
	trap interrupted HUP INT TERM
}

deployment_stop()
{
	change deploy stop-deployment --deployment-id "$1" \
	    --auto-rollback-enabled >/dev/null
}

# task_register DIGEST: the ARN of a new revision in $task.
task_register()
{
	file=$deploy/cfn/$environment/taskdef.json
	text=$(sed -e "s/<ACCOUNT>/$(account)/g" -e "s/<REGION>/$(region)/g" \
	    -e "s/<DIGEST>/$1/g" "$file")
	task=$(change ecs register-task-definition --cli-input-json "$text" |
	    jq -r '.taskDefinition.taskDefinitionArn // "dry-run"')
	[ -n "$task" ] || fail "the task definition is refused"
}

# The order for CodeDeploy, with the hook where the environment has one.
appspec()
{
	hook=$(jq -r '.Resources.Hook.Properties.FunctionName // empty' \
	    "$deploy/cfn/$environment/Service.json")
	sed -e '/^#/d' -e "s,<TASK_DEFINITION>,$task," \
	    -e "s,<HOOK>,$hook," "$deploy/appspec.yml" |
	    if [ -n "$hook" ]; then cat; else sed '/^Hooks:/,$d'; fi
}

# deployment_create DESCRIPTION [OPTION...]: its id in $deployment.
deployment_create()
{
	description=$1
	shift
	content=$(appspec)
	sum=$(printf '%s' "$content" | sha256sum | cut -d ' ' -f 1)
	revision=$(jq -cn --arg content "$content" --arg sum "$sum" \
	    '{revisionType: "AppSpecContent",
	      appSpecContent: {content: $content, sha256: $sum}}')
	deployment=$(change deploy create-deployment \
	    --application-name "$prefix-app" \
	    --deployment-group-name "$prefix-group" \
	    --description "$description" --revision "$revision" "$@" |
	    jq -r '.deploymentId // "dry-run"')
	[ -n "$deployment" ] || fail "the deployment is refused"
}

deployment_state()
{
	state=$(ask deploy get-deployment --deployment-id "$deployment" |
	    jq -r .deploymentInfo.status) || { echo unknown; return; }
	case $state in
	Succeeded) echo 'done' ;;
	Failed | Stopped) echo failed ;;
	*) echo "$state" ;;
	esac
}

deployment_wait()
{
	[ -z "$dry_run" ] || { deployment=; return 0; }
	say "waiting for $deployment"
	if until_done "$deployment" "$timeout" deployment_state; then
		deployment=
		return 0
	fi
	# Failed ones have rolled back by themselves; one that still runs after
	# its time is stopped.
	if [ "$(deployment_state)" != failed ]; then
		deployment_stop "$deployment" || true
	fi
	ask deploy get-deployment --deployment-id "$deployment" |
	    jq -r '.deploymentInfo.errorInformation.message // empty' >&2
	deployment=
	return 1
}
