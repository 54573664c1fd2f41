# Debian packages that the project needs, in one place.  Sourced (bash) by
# ./quickstart and ./run-tests, which call
#
#	packages_install build run ...
#
# A package counts as missing when its probe fails, so on a system without
# dpkg, or with programs of one's own, nothing is asked for in vain.

# group  package  probe (cmd: in PATH, pc: of pkg-config, file:, pg:)
packages_table='
build gcc                cmd:gcc
build libc6-dev          file:/usr/include/stdio.h
build make               cmd:make
build autoconf           cmd:autoconf
build autoconf-archive   file:/usr/share/aclocal/ax_append_flag.m4
build automake           cmd:automake
build pkg-config         cmd:pkg-config
build libcurl4-openssl-dev pc:libcurl
build libjansson-dev     pc:jansson
build libmicrohttpd-dev  pc:libmicrohttpd
build libncurses-dev     pc:ncursesw
build libpq-dev          pc:libpq
build liburing-dev       pc:liburing
build systemtap-sdt-dev  cmd:dtrace
run   postgresql         pg:initdb
run   curl               cmd:curl
test  libcmocka-dev      pc:cmocka
test  python3            cmd:python3
test  mandoc             cmd:mandoc
test  xz-utils           cmd:xz
test  binutils           cmd:objdump
tool  strace             cmd:strace
tool  haproxy            file:/usr/sbin/haproxy
tool  chromium           cmd:chromium
tool  zsh                cmd:zsh
tool  fish               cmd:fish
tool  spin               cmd:spin
tool  qemu-user          cmd:qemu-aarch64
tool  gcc-aarch64-linux-gnu cmd:aarch64-linux-gnu-gcc
tool  libc6-dev-arm64-cross file:/usr/aarch64-linux-gnu/include/stdio.h
tool  nodejs             cmd:node
tool  npm                cmd:npm
tool  libcmocka-dev:arm64 file:/usr/lib/aarch64-linux-gnu/libcmocka.so
lint  clang              cmd:clang
lint  clang-format       cmd:clang-format
lint  clang-tidy         cmd:clang-tidy
lint  libclang-rt-dev    clang:fuzzer
lint  cppcheck           cmd:cppcheck
lint  shellcheck         cmd:shellcheck
'

# The folder with PostgreSQL's server programs, which Debian keeps out of PATH.
packages_postgres_bin()
{
	local program

	program=$(command -v initdb) && program=$(readlink -f "$program")
	if [[ -n $program && -x ${program%/*}/postgres &&
	    -x ${program%/*}/pg_ctl && -x ${program%/*}/psql ]]; then
		echo "${program%/*}"
		return
	fi
	# The newest one: 9 sorts before 15.
	for program in $(printf '%s\n' /usr/lib/postgresql/*/bin/initdb |
	    sort -t/ -k5,5nr); do
		if [[ -x $program ]]; then
			echo "${program%/*}"
			return
		fi
	done
	return 1
}

packages_is_there()
{
	local kind=${1%%:*} what=${1#*:}

	case $kind in
	cmd) command -v "$what" >/dev/null ;;
	file) [[ -e $what ]] ;;
	pc) pkg-config --exists "$what" 2>/dev/null ;;
	pg) packages_postgres_bin >/dev/null ;;
	clang) compgen -G "$(clang -print-resource-dir 2>/dev/null
	    )/lib/linux/libclang_rt.$what-*" >/dev/null ;;
	esac
}

# The names of the packages of these groups that are missing, one a line.
packages_missing()
{
	local group package probe

	while read -r group package probe; do
		[[ " $* " == *" $group "* ]] || continue
		packages_is_there "$probe" || echo "$package"
	done <<<"$packages_table"
}

# Debian's PostgreSQL makes a cluster on port 5432 when it is installed, unless
# it is told not to.  Ours lives elsewhere, and one that nobody asked for would
# stay behind.
packages_apt()
{
	local conf=/etc/postgresql-common/createcluster.d/booksd.conf
	local script="
		set -e
		export DEBIAN_FRONTEND=noninteractive
		if [ ! -e $conf ]; then
			mkdir -p ${conf%/*}
			echo 'create_main_cluster = false' >$conf
			trap 'rm -f $conf' EXIT
		fi
		case '$*' in
		*:arm64*) dpkg --add-architecture arm64 ;;
		esac
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends $*"

	if [[ $(id -u) -eq 0 ]]; then
		sh -c "$script"
	else
		sudo -n sh -c "$script"
	fi
}

# Install what is missing of these groups; 1 after saying why it cannot be.
packages_install()
{
	local missing log

	missing=$(packages_missing "$@" | tr '\n' ' ')
	missing=${missing% }
	[[ -n $missing ]] || return 0
	if ! command -v apt-get >/dev/null; then
		echo "These are missing (Debian's names), and there is no" \
		    "apt-get here: $missing" >&2
		return 1
	fi
	if [[ $(id -u) -ne 0 ]] && ! sudo -n true 2>/dev/null; then
		echo "These packages are missing, and only root can install" \
		    "them:" >&2
		echo "    sudo apt-get install --no-install-recommends" \
		    "$missing" >&2
		return 1
	fi
	echo "Installing Debian packages: $missing"
	log=$(mktemp)
	if ! packages_apt "$missing" >"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		echo "apt-get could not install them (see above)." >&2
		return 1
	fi
	rm -f "$log"
	missing=$(packages_missing "$@" | tr '\n' ' ')
	[[ -z $missing ]] || echo "Still missing after installation:" \
	    "$missing; going on without." >&2
}
