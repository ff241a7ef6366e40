#!/bin/sh
# Proves the set-up: a new minimal Debian tree, this repository's last commit cloned into it, and
# both commands' set-up steps run there. What packages come from is this machine's own apt, pip and
# npm configuration, carried over as it is found.
#
# All runs in a mount and a process namespace of its own: whatever ends this, no mount and no
# process stays. The tree's folder is removed at the end.
set -eu
if [ "${INTERTIE_FRESH:-}" != inside ]; then
  [ "$(id -u)" = 0 ] || { echo "test-fresh: run it as root" >&2; exit 1; }
  command -v mmdebstrap >/dev/null || {
    echo "test-fresh: installing mmdebstrap ..."
    apt-get -qq update
    apt-get -qq -y --no-install-recommends install mmdebstrap >/dev/null
  }
  folder=$(mktemp -d /var/tmp/intertie-fresh.XXXXXX)
  trap 'rm -rf --one-file-system "$folder"' EXIT
  trap 'exit 130' INT TERM HUP
  INTERTIE_FRESH=inside unshare --mount --propagation private --pid --fork --kill-child \
    sh "$0" "$folder" &
  inner=$!
  # Only this ends unshare at once, and with it all that it started.
  trap 'kill -KILL $inner; wait $inner 2>/dev/null || :; exit 130' INT TERM HUP
  status=0
  wait $inner || status=$?
  [ $status -eq 0 ] || echo "test-fresh: failed" >&2
  exit $status
fi

folder=$1
root=$folder/root
source=$(cd "$(dirname "$0")/.." && pwd)
began=$(date +%s)
say() { echo "test-fresh: $*"; }

say "bootstrapping a minimal Debian 12 ..."
apt-config dump | grep -E '^Acquire::(http|https|ftp|Retries)' >"$folder/apt.conf" || :
set --
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
  [ -s "$list" ] && set -- "$@" "$list"
done
mmdebstrap --quiet --mode=root --variant=minbase --include=git,make,python3,ca-certificates \
  --aptopt="$folder/apt.conf" bookworm "$root" "$@"

# Carries a file or folder of this machine to the same place in the tree.
carry() {
  [ -e "$1" ] || return 0
  mkdir -p "$root$(dirname "$1")"
  cp -aL "$1" "$root$(dirname "$1")/"
}
rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
for path in "$@" /etc/apt/keyrings /etc/apt/trusted.gpg.d /etc/apt/auth.conf.d \
  /etc/apt/preferences.d /etc/pip.conf /etc/xdg/pip /root/.config/pip /root/.pip \
  /etc/npmrc /root/.npmrc /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt \
  /usr/local/share/ca-certificates; do
  carry "$path"
done
cp "$folder/apt.conf" "$root/etc/apt/apt.conf.d/99carried"

mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
# Folders of this machine that its pip configuration names, read-only; the files of an index lie
# beside its folder `simple`.
named=$(
  cat /etc/pip.conf /etc/xdg/pip/*.conf /root/.config/pip/*.conf /root/.pip/*.conf 2>/dev/null || :
  env | grep '^PIP_' || :
)
for path in $(printf '%s\n' "$named" | grep -oE '(file://|[= ,])/[^ ,"]+' | sed -E 's#^(file://|[= ,])##'); do
  path=${path%/simple}
  [ -d "$path" ] || continue
  case $path in /etc/* | /proc/* | /sys/* | /dev/* | /) continue ;; esac
  mkdir -p "$root$path"
  mount --bind -o ro "$path" "$root$path"
done

git -c safe.directory='*' clone -q "$source" "$root/root/intertie"
settings='PIP_[A-Z_]*|(npm_config|NPM_CONFIG)_[A-Za-z_]*|NODE_EXTRA_CA_CERTS'
settings="$settings|[a-z]+_proxy|[A-Z]+_PROXY|SSL_CERT_FILE"
grep -zE "^($settings)=" /proc/self/environ >"$folder/environment" || :
inside() {
  xargs -0 -a "$folder/environment" sh -c 'root=$1 command=$2; shift 2
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@" \
      chroot "$root" sh -c "cd /root/intertie && $command"' - "$root" "$1"
}

say "running make setup in it ..."
inside 'make setup' || { tail -n 40 "$root/var/log/intertie-setup.log" >&2; exit 1; }
say "running it again ..."
again=$(date +%s)
said=$(inside 'make setup')
took=$(($(date +%s) - again))
[ -z "$said" ] && [ $took -le 5 ] || { say "the second set-up took $took s and said: $said"; exit 1; }

say "trying what was set up ..."
inside '.venv/bin/intertie --help >/dev/null'
inside 'for service in broker nodeagent imagestore metasched; do
  .venv/bin/python -c "import intertie.$service.main" || exit 1; done'
inside 'test -s /var/lib/intertie/guest/intertie-guest.qcow2'
inside 'qemu-img check -q /var/lib/intertie/guest/intertie-guest.qcow2'
inside '.venv/bin/python -m testbed --help >/dev/null'
inside '.venv/bin/python -m pytest -k one tests/model'
inside 'PATH=$PATH:.venv/bin .venv/bin/python -c "
from testbed.preflight import check_machine
check_machine()"'
cat >"$root/root/try-libvirt" <<'TRY'
# A guest under libvirtd, without what Debian puts around it; the network is this script's own.
mkdir -p /run/libvirt /var/log/libvirt /var/lib/libvirt /var/cache/libvirt
printf 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\ncgroup_controllers = []\nnamespaces = []\n' \
  >/etc/libvirt/qemu.conf
printf '<domain type="qemu"><name>try</name><memory unit="MiB">32</memory>%s</domain>' \
  '<os><type arch="x86_64">hvm</type></os>' >/root/try.xml
# Both daemons end with the process namespace.
virtlogd -d && libvirtd -d && virsh -q -c qemu:///system create /root/try.xml \
  && virsh -q -c qemu:///system destroy try
TRY
inside 'unshare --net sh /root/try-libvirt'
say "building clients in other languages ..."
inside 'sh setup/setup.sh clients'
for client in node/tour.js cpp/tour ruby/tour.rb go/tour; do
  # Without arguments each starts, and says which is missing.
  inside "make -s -C clients/${client%/*} CXXFLAGS=-O0 && { build/clients/$client; test \$? = 2; }" \
    >"$folder/client" 2>&1 || { cat "$folder/client" >&2; exit 1; }
done
say "passed in $(($(date +%s) - began)) s"
