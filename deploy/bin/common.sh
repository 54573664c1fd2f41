# What the scripts of this folder have in common.  Sourced (sh), by
#
#	. "$(dirname "$0")/common.sh"
#
# Nothing here knows GitHub.  Programs: aws, jq, and what a script names.
# shellcheck shell=sh disable=SC2034

deploy=$(cd "$(dirname "$0")/.." && pwd)
program=${0##*/}
environment=production
prefix=
dry_run=
poll=${DEPLOY_POLL:-15}
timeout=${DEPLOY_TIMEOUT:-3600}

say()
{
	printf '%s: %s\n' "$program" "$*" >&2
}

fail()
{
	say "$*"
	exit 1
}

# The comment at the top of the script is its manual.
usage()
{
	awk 'NR == 1 { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$0"
}

usage_error()
{
	usage >&2
	exit 64
}

need()
{
	for word; do
		command -v "$word" >/dev/null || fail "$word is not installed"
	done
}

# option NAME VALUE: one that all scripts know; says how many words it took in
# $taken, 0 when it is not one.
option()
{
	taken=0
	case $1 in
	-h | --help) usage; exit 0 ;;
	--dry-run) dry_run=yes; taken=1 ;;
	--environment) environment=${2:?} taken=2 ;;
	--prefix) prefix=${2:?} taken=2 ;;
	--poll) poll=${2:?} taken=2 ;;
	--timeout) timeout=${2:?} taken=2 ;;
	esac
}

# After the options: the fixed names of the environment.
names()
{
	case $environment in
	production | production-v2) : "${prefix:=awsome-books}" ;;
	*) : "${prefix:=awsome-books-$environment}" ;;
	esac
	[ -d "$deploy/cfn/$environment" ] ||
		fail "there is no environment '$environment' in deploy/cfn"
}

# Debian's aws does not read AWS_ENDPOINT_URL by itself.
ask()
{
	aws ${AWS_ENDPOINT_URL:+--endpoint-url "$AWS_ENDPOINT_URL"} \
	    --output json "$@" </dev/null
}

# The same for what changes something.
change()
{
	if [ -n "$dry_run" ]; then
		printf 'would: aws %s\n' "$*" >&2
		echo '{}'
		return
	fi
	ask "$@"
}

account()
{
	ask sts get-caller-identity | jq -r .Account
}

region()
{
	echo "${AWS_REGION:-${AWS_DEFAULT_REGION:?AWS_REGION is not set}}"
}

# v1.2.3 or 1.2.3: the tag of an image has no v.
version_of()
{
	version=${1#v}
	printf '%s\n' "$version" |
	    grep -Eqx '[0-9]+\.[0-9]+\.[0-9]+(-[0-9a-z.]+)?' ||
		fail "'$1' is no version: it is like v1.2.3"
}

digest_of()
{
	digest=$(ask ecr describe-images --repository-name "$prefix" \
	    --image-ids "imageTag=$1" | jq -r '.imageDetails[0].imageDigest') ||
		fail "there is no image of $1 in $prefix"
	case $digest in
	sha256:????????????????????????????????????????????????????????????????) ;;
	*) fail "there is no image of $1 in $prefix" ;;
	esac
}

output_of()
{
	value=$(ask cloudformation describe-stacks --stack-name "$prefix-$1" |
	    jq -r --arg key "$2" '.Stacks[0].Outputs[] |
		select(.OutputKey == $key) | .OutputValue')
	[ -n "$value" ] || fail "the stack $prefix-$1 has no output $2"
	echo "$value"
}

# until_done WHAT SECONDS COMMAND...: COMMAND prints done, failed or anything
# else while it goes on.
until_done()
{
	what=$1 left=$2
	shift 2
	while :; do
		outcome=$("$@") || outcome=failed
		case $outcome in
		done) return 0 ;;
		failed) return 1 ;;
		esac
		[ "$left" -gt 0 ] || { say "$what: timeout"; return 1; }
		left=$((left - (${poll%.*} > 0 ? ${poll%.*} : 1)))
		sleep "$poll"
	done
}

# Of what is left after the options.
no_more_options()
{
	case ${1:-} in
	-*) usage_error ;;
	esac
}

# A line for people and, inside GitHub, for the summary.
report()
{
	say "$*"
	[ -z "${GITHUB_STEP_SUMMARY:-}" ] || echo "$*" >>"$GITHUB_STEP_SUMMARY"
}
