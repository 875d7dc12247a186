#!/bin/sh
# A private Docker engine, for tests on a machine where none runs: no network, no registry, nothing shared with any
# other engine. Everything it makes is below DIR or in cgroups of its own name, and `down` takes all of it away, also
# after an engine that was killed.
#
#   sh scripts/docker-engine.sh up DIR      starts it and prints DOCKER_HOST=...; it needs root and dockerd
#   sh scripts/docker-engine.sh down DIR    ends its containers and it, and removes DIR
#
# Exit status: 0 done; 2 wrong usage; 5 it cannot be done here (stderr says why).
set -eu

say() { printf 'docker-engine: %s\n' "$*" >&2; }

fail() {
    say "$@"
    exit 5
}

usage() {
    echo "usage: sh scripts/docker-engine.sh up|down DIR" >&2
    exit 2
}

[ $# = 2 ] || usage
case "$2" in
/*) dir=${2%/} ;;
*) dir=$(pwd)/${2%/} ;;
esac
[ -n "$dir" ] || usage
socket=$dir/docker.sock
cgroup=ponder-engine-$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1)

# What Docker makes outside of DIR, the innermost first; what was not there before goes with the engine.
PLACES="/etc/docker/key.json /etc/docker /run/docker/plugins /run/docker /run/containerd/s /run/containerd"

# --- what runs and what it left ------------------------------------------------------------------------------

# Prints the pids whose command line names a path below DIR, and which have this name.
ours() {
    grep -alF "$dir/" /proc/[0-9]*/cmdline 2>/dev/null | while read -r file; do
        process=${file%/cmdline}
        { read -r name <"$process/comm"; } 2>/dev/null || continue
        # The pattern is meant to be one.
        # shellcheck disable=SC2254
        case "$name" in $1) echo "${process#/proc/}" ;; esac
    done
}

# Waits until no process of this name is left; fails after 20 seconds.
gone() {
    tries=200
    while [ -n "$(ours "$1")" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# Prints the directories of our cgroup, in every hierarchy that is mounted, the deepest first.
cgroups() {
    awk '{ for (i = 7; i < NF; i++) if ($i == "-" && $(i + 1) ~ /^cgroup2?$/) print $5 }' /proc/self/mountinfo |
        while read -r mount; do
            [ ! -d "$mount/$cgroup" ] || find "$mount/$cgroup" -depth -type d
        done
}

# The first processes of containers are children of their shims. Docker itself would give each ten seconds.
kill_containers() {
    for shim in $(ours 'containerd-shim*'); do
        for task in "/proc/$shim/task"/*/children; do
            for child in $(cat "$task" 2>/dev/null); do
                kill -KILL "$child" 2>/dev/null || true
            done
        done
    done
    for group in $(cgroups); do
        for pid in $(cat "$group/cgroup.procs" 2>/dev/null); do
            kill -KILL "$pid" 2>/dev/null || true
        done
    done
}

unmount_all() {
    tries=20
    while [ "$tries" -gt 0 ]; do
        mounts=$(awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
        [ -n "$mounts" ] || return 0
        for mount in $mounts; do
            umount "$mount" 2>/dev/null || [ "$tries" -gt 10 ] || umount -l "$mount" 2>/dev/null || true
        done
        tries=$((tries - 1))
        sleep 0.1
    done
    return 1
}

remove_cgroups() {
    tries=50
    while groups=$(cgroups) && [ -n "$groups" ] && [ "$tries" -gt 0 ]; do
        # Names are made of letters, digits and dashes.
        # shellcheck disable=SC2086
        rmdir $groups 2>/dev/null || sleep 0.1
        tries=$((tries - 1))
    done
    [ -z "$(cgroups)" ]
}

# --- commands ------------------------------------------------------------------------------------------------

answers() {
    [ -S "$socket" ] && [ -n "$(ours dockerd)" ]
}

up() {
    [ "$(id -u)" = 0 ] || fail "only root can run an engine; add yourself to the group of one that runs: usermod -aG docker $(id -un)"
    command -v dockerd >/dev/null 2>&1 || fail "dockerd is not installed: apt-get install -y --no-install-recommends docker.io"
    if answers; then
        echo "DOCKER_HOST=unix://$socket"
        return
    fi
    [ ! -d "$dir" ] || [ -z "$(ls -A "$dir")" ] || down
    mkdir -p "$dir"
    chmod 0711 "$dir"
    for place in $PLACES; do
        [ -e "$place" ] || echo "$place" >>"$dir/new"
    done
    echo '{}' >"$dir/daemon.json"
    # Without the machine's own configuration, bridges and firewall rules: these are not ours to touch.
    setsid dockerd --config-file "$dir/daemon.json" --data-root "$dir/data" --exec-root "$dir/run" \
        --pidfile "$dir/docker.pid" -H "unix://$socket" --exec-opt native.cgroupdriver=cgroupfs \
        --cgroup-parent "/$cgroup" --iptables=false --ip6tables=false --ip-forward=false --bridge=none \
        >"$dir/log" 2>&1 </dev/null &
    tries=300
    until grep -q 'API listen on' "$dir/log" 2>/dev/null; do
        tries=$((tries - 1))
        if [ "$tries" -le 0 ] || ! kill -0 $! 2>/dev/null; then
            tail -n 5 "$dir/log" >&2
            down
            fail "dockerd did not start; its last words are above"
        fi
        sleep 0.1
    done
    echo "DOCKER_HOST=unix://$socket"
}

down() {
    [ -d "$dir" ] || return 0
    [ "$(id -u)" = 0 ] || fail "only root can end an engine"
    for _ in 1 2 3; do # a container may be starting
        kill_containers
        [ -z "$(ours 'containerd-shim*')" ] || sleep 0.3
    done
    for name in dockerd containerd; do # the second is left alone when the first was killed
        for pid in $(ours "$name"); do
            kill -TERM "$pid" 2>/dev/null || true
        done
        gone "$name" || kill -KILL $(ours "$name") 2>/dev/null || true
    done
    kill_containers
    for pid in $(ours 'containerd-shim*'); do
        kill -KILL "$pid" 2>/dev/null || true
    done
    gone 'containerd-shim*' || fail "processes of the engine in $dir do not end"
    unmount_all || fail "mounts below $dir cannot be removed"
    remove_cgroups || fail "cgroups named $cgroup cannot be removed"
    while read -r place; do
        if [ -d "$place" ]; then rmdir "$place" 2>/dev/null || true; else rm -f "$place"; fi
    done 2>/dev/null <"$dir/new" || true
    rm -rf "$dir"
}

case "$1" in
up) up ;;
down) down ;;
*) usage ;;
esac
