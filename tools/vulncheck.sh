#!/usr/bin/env bash
# Looks for known vulnerabilities that the code can reach. A vulnerability found is a failure; a database that cannot be
# reached (no network, a proxy in between) is a warning, since it says nothing about the code.
# Usage: tools/vulncheck.sh path/to/govulncheck [packages]
set -uo pipefail

tool=$1
shift
[[ $# -gt 0 ]] || set -- ./...

output=$("$tool" "$@" 2>&1)
status=$?
case $status in
0)
	echo "govulncheck: no vulnerabilities found"
	exit 0
	;;
3)
	echo "$output"
	exit 3
	;;
esac

# The exit code does not tell an unreachable database from packages that do not build; the text does.
if grep -q 'fetching vulnerabilities' <<<"$output"; then
	echo "warning: the vulnerability database could not be reached; known vulnerabilities were NOT checked:" >&2
	tail -n 1 <<<"$output" >&2
	exit 0
fi
echo "$output"
exit "$status"
