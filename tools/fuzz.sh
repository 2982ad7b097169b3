#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, each for the given time.
# Usage: tools/fuzz.sh [time]
set -euo pipefail

time=${1:-30s}
failed=0
count=0
while IFS=: read -r file name; do
	dir=$(dirname "$file")
	count=$((count + 1))
	echo "== $dir $name ($time)"
	# Minimising what is merely interesting would otherwise take most of a short run.
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10x "$dir" || failed=1
done < <(grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sed 's/:func /:/' | sort)
echo "$count fuzz targets"
exit "$failed"
