#!/usr/bin/env bash
# Makes sure that a program the tests need exists, installing it from the system's packages if it does not.
# Usage: tools/need.sh postgres|promtool|cc|node
set -euo pipefail
shopt -s nullglob

# postgres_bin prints the directory that holds the Postgres server binaries. Package persistence/pgtest looks in the same places.
postgres_bin() {
	local dir dirs=()
	if command -v pg_config >/dev/null 2>&1; then
		dirs+=("$(pg_config --bindir 2>/dev/null || true)")
	fi
	if command -v initdb >/dev/null 2>&1; then
		dirs+=("$(dirname "$(command -v initdb)")")
	fi
	dirs+=(/usr/lib/postgresql/*/bin /usr/libexec/postgresql* /usr/pgsql-*/bin
		/opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin /home/linuxbrew/.linuxbrew/opt/postgresql*/bin)
	for dir in "${dirs[@]}"; do
		if [[ -x $dir/initdb && -x $dir/postgres && -x $dir/pg_ctl ]]; then
			echo "$dir"
			return 0
		fi
	done
	return 1
}

have() {
	case $1 in
	postgres) postgres_bin >/dev/null ;;
	promtool) command -v promtool >/dev/null 2>&1 ;;
	cc) command -v "$(go env CC)" >/dev/null 2>&1 ;;
	node) command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 ;;
	esac
}

# as_root runs a command with the rights to install packages.
as_root() {
	if [[ $(id -u) -eq 0 ]]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		echo "need.sh: installing packages needs root or sudo" >&2
		return 1
	fi
}

# RUNLEVEL=1 keeps Debian's packages from starting the servers that they bring: only the binaries are wanted.
apt() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
	as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@"
}

install_packages() {
	local what=$1
	if command -v apt-get >/dev/null 2>&1; then
		case $what in
		postgres) apt postgresql ;;
		promtool) apt prometheus ;;
		cc) apt gcc libc6-dev ;;
		node) apt nodejs npm ;;
		esac
	elif command -v dnf >/dev/null 2>&1; then
		case $what in
		postgres) as_root dnf install -y -q postgresql-server ;;
		promtool) as_root dnf install -y -q prometheus || as_root dnf install -y -q golang-github-prometheus ;;
		cc) as_root dnf install -y -q gcc glibc-devel ;;
		node) as_root dnf install -y -q nodejs npm ;;
		esac
	elif command -v apk >/dev/null 2>&1; then
		case $what in
		postgres) as_root apk add --quiet postgresql ;;
		promtool) as_root apk add --quiet prometheus ;;
		cc) as_root apk add --quiet gcc musl-dev ;;
		node) as_root apk add --quiet nodejs npm ;;
		esac
	elif command -v brew >/dev/null 2>&1; then
		case $what in
		postgres) brew install --quiet postgresql@17 ;;
		promtool) brew install --quiet prometheus ;;
		cc) echo "need.sh: run xcode-select --install" >&2 && return 1 ;;
		node) brew install --quiet node ;;
		esac
	else
		echo "need.sh: no apt-get, dnf, apk or brew here" >&2
		return 1
	fi
}

what=${1:-}
case $what in
postgres | promtool | cc | node) ;;
*)
	echo "usage: tools/need.sh postgres|promtool|cc|node" >&2
	exit 2
	;;
esac

if ! have "$what"; then
	echo "installing $what from the system's packages" >&2
	install_packages "$what" >&2 || true
	if ! have "$what"; then
		echo "need.sh: $what is missing and could not be installed; please install it by hand" >&2
		exit 1
	fi
fi
case $what in
postgres) echo "postgres: $(postgres_bin)" ;;
promtool) echo "promtool: $(command -v promtool)" ;;
cc) echo "cc: $(command -v "$(go env CC)")" ;;
node) echo "node: $(command -v node)" ;;
esac
