# To be sourced: apt with a configuration of its own, for another Debian release than this machine's.
#
# apt gets source lists, state and cache in a folder of its own, so nothing of the system's changes;
# every index is checked against Debian's archive keyring. The mirror is the one that this machine's
# apt uses already, or $FLEET_DEBIAN_MIRROR ("URI [SECURITY-URI]").

readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# Prints "URI SUITE" for every index that this machine's apt knows. Needs no downloaded lists.
system_sources() {
    apt-get update --print-uris 2>/dev/null |
        sed -n "s#^'\(.*\)/dists/\(.*\)/InRelease' .*#\1 \2#p" | sort -u
}

# Prints "MAIN-URI [SECURITY-URI]" lines to try. A third party's archive may use the same suite
# name: it fails the check against Debian's keyring, and the next line is tried.
mirrors() {
    if [ -n "${FLEET_DEBIAN_MIRROR:-}" ]; then
        echo "$FLEET_DEBIAN_MIRROR"
        return
    fi
    local codename main security
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    [ -n "$codename" ] || return 0
    security=$(system_sources | awk -v c="$codename" '$2 == c "-security" { print $1; exit }')
    system_sources | awk -v c="$codename" '$2 == c { print $1 }' | while read -r main; do
        echo "$main ${security:-$main-security}"
    done
}

# write_apt_configuration WORK TYPE SUITE MAIN [SECURITY]
# Writes WORK/apt/etc/apt.conf, for `apt-get -c`; TYPE is deb or deb-src. No package counts as
# installed. Proxies and passwords of the machine's own apt stay in force; its hooks do not run.
write_apt_configuration() {
    local work=$1 line="$2 [signed-by=$keyring]" release=$3
    mkdir -p "$work"/apt/{lists/partial,cache/archives/partial,etc}
    {
        echo "$line $4 $release main"
        [ -z "${5:-}" ] || echo "$line $5 $release-security main"
    } >"$work/apt/etc/sources.list"
    cat >"$work/apt/etc/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/apt/etc/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "-";
Dir::State "$work/apt";
Dir::State::lists "$work/apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$work/apt/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "$(id -un)";
APT::Get::List-Cleanup "false";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "60";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
CONF
}
