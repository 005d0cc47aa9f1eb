#!/bin/sh
# apt: the lists and a package of deb.debian.org, into folders of its own. It reads no variable for a CA.
client="apt"
. "$(dirname "$0")/kb.sh"
cd "$work"

mkdir -p root/etc/apt/apt.conf.d root/etc/apt/preferences.d root/lists/partial root/cache/archives/partial root/lib/dpkg
: >root/lib/dpkg/status
echo "deb [trusted=yes arch=all] $KB_BASE/debian kb main" >root/etc/apt/sources.list
cat >apt.conf <<CONF
Dir "$work/root";
Dir::State "$work/root/lib";
Dir::State::lists "$work/root/lists";
Dir::State::status "$work/root/lib/dpkg/status";
Dir::Cache "$work/root/cache";
Acquire::Languages "none";
Acquire::Retries "0";
${KB_CA:+Acquire::https::CaInfo \"$KB_CA\";}
CONF
export APT_CONFIG="$work/apt.conf"

apt-get -qq update >>"$work/log" 2>&1
apt-get -qq download kb-tiny >>"$work/log" 2>&1
dpkg-deb -x kb-tiny_1.0_all.deb unpacked
expect "the package" "$(cat unpacked/usr/share/kb-tiny/mark)" "$mark"
