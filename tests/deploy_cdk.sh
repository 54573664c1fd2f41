#!/bin/sh
# Goal: the AWS architecture in deploy/cdk is what its templates say, and what
# the requirements ask for.
# Method: in a folder of the build, install the packages that the lock file
# names, check the types, synthesize with the schema's and cdk-nag's findings
# as errors, compare with the committed templates, and run the assertions and
# mutations.  The templates also go through cfn-lint where that is installed.
# Nothing is asked of AWS.
set -u

top=${abs_top_srcdir:-$(cd "$(dirname "$0")/.." && pwd)}
work=${abs_top_builddir:-$top}/build-cdk
number=0
failed=0

skip_all()
{
	echo "1..0 # SKIP $*"
	exit 0
}

# result STATUS SENTENCE [LOG]
result()
{
	number=$((number + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $number - $2"
	else
		[ -z "${3:-}" ] || tail -n 40 "$3" | cut -c1-400 | sed 's/^/# /'
		echo "not ok $number - $2"
		failed=1
	fi
}

# The same lock file needs no second installation.
install_packages()
{
	stamp=$(cksum <package-lock.json)
	[ "$(cat .installed 2>/dev/null)" != "$stamp" ] || return 0
	rm -f .installed
	npm ci --no-audit --no-fund >npm.log 2>&1 </dev/null || return 1
	echo "$stamp" >.installed
}

command -v node >/dev/null || skip_all "node is not installed"
command -v npm >/dev/null || skip_all "npm is not installed"
[ "$(node -p 'parseInt(process.versions.node)')" -ge 20 ] ||
	skip_all "node is older than 20"

mkdir -p "$work" && cd "$work" || exit 1
rm -rf bin lib test build cdk.out
(cd "$top/deploy/cdk" && tar cf - .npmrc package.json package-lock.json \
    tsconfig.json bin lib test) | tar xf - || exit 1
if ! install_packages; then
	grep -q -E 'ENOTFOUND|ETIMEDOUT|ECONN|EAI_AGAIN' npm.log &&
		skip_all "the packages cannot be fetched: no network"
	result 1 "the packages of the lock file can be installed" npm.log
	echo "1..$number"
	exit 1
fi
result 0 "the packages of the lock file can be installed"

! grep -n -E '"resolved"|https?://[^"]*registry' package-lock.json \
    .npmrc package.json >host.log
result $? "no file names a registry" host.log

npx --no-install tsc -p . >tsc.log 2>&1
result $? "the types are right" tsc.log

CDK_OUTDIR=cdk.out node build/bin/synth.js --compare "$top/deploy" \
    >synth.log 2>&1
result $? "synthesized without a finding, and equal to what is committed" \
    synth.log
grep -q "warning: task.protocol is http" synth.log
result $? "the synthesis warns of plain HTTP to the tasks" synth.log

# An own folder for temporary files, because the models are written to it.
mkdir -p tmp
TMPDIR=$work/tmp CDK_VALIDATION=false abs_top_srcdir=$top \
    node --test --test-reporter=tap build/test/ >node.log 2>&1
status=$?
grep '^# pass\|^# fail' node.log
grep -A 25 '^not ok' node.log >node.failed
result $status "requirements, mutations and configuration" node.failed
rm -rf tmp

if command -v cfn-lint >/dev/null && cfn-lint --version >/dev/null 2>&1; then
	# W3010: zones are asked for.  W3691: only the major number is given.
	cfn-lint -i W3010 W3691 -t "$top"/deploy/cfn/production/[A-Z]*.json \
	    "$top"/deploy/cfn/demo/[A-Z]*.json >cfn-lint.log 2>&1
	result $? "cfn-lint has nothing to say" cfn-lint.log
else
	number=$((number + 1))
	echo "ok $number - cfn-lint has nothing to say # SKIP not installed"
fi
echo "1..$number"
exit $failed
