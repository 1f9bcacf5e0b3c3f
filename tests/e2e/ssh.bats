#!/usr/bin/env bats
# transport/ against real sshds on 127.0.0.1: one with exactly NixOS's algorithms, one with
# OpenSSH's defaults, and peers that are no sshd at all. Needs root, as sshd does.

bats_require_minimum_version 1.5.0

setup_file() {
    export T=$BATS_FILE_TMPDIR
    mkdir -p "$T/home" /run/sshd
    for kind in ed25519 ecdsa rsa; do
        ssh-keygen -q -t "$kind" -N '' -f "$T/host_$kind"
        ssh-keygen -q -t "$kind" -N '' -f "$T/id_$kind"
    done
    ssh-keygen -q -t ed25519 -N 'a passphrase' -f "$T/id_locked"
    ssh-keygen -q -t ed25519 -N '' -f "$T/id_stranger"
    cat "$T"/id_{ed25519,ecdsa,rsa,locked}.pub >"$T/authorized"
    # A login shell's start-up files must not decide how long these tests take.
    common="ListenAddress 127.0.0.1
HostKey $T/host_ed25519
HostKey $T/host_rsa
HostKey $T/host_ecdsa
AuthorizedKeysFile $T/authorized
StrictModes no
UsePAM no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv HOME=$T/home"
    echo "$common" >"$T/defaults.conf"
    echo "$common
KexAlgorithms sntrup761x25519-sha512@openssh.com,curve25519-sha256,curve25519-sha256@libssh.org
Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr
MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com,umac-128-etm@openssh.com" >"$T/nixos.conf"
    start_sshd nixos
    start_sshd defaults
    NIXOS=127.0.0.1:$(<"$T/nixos.port")
    DEFAULTS=127.0.0.1:$(<"$T/defaults.port")
    export NIXOS DEFAULTS
    known_as "$NIXOS" ed25519 >"$T/known_hosts"
    known_as "$DEFAULTS" ed25519 >>"$T/known_hosts"
}

teardown_file() {
    for file in "$T"/*.pid; do
        kill "$(<"$file")" 2>/dev/null || true
    done
}

setup() {
    client=${FLEET_TEST_PROGRAMS:?the folder with e2e_ssh_client}/e2e_ssh_client
    peer=
}

teardown() {
    if [ -n "$peer" ]; then kill "$peer" 2>/dev/null || true; fi
    if [ -n "${SSH_AGENT_PID:-}" ]; then kill "$SSH_AGENT_PID" || true; fi
}

free_port() {
    perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport'
}

# start_sshd NAME [OPTION...]: with $T/NAME.conf; its port and pid go to $T/NAME.port and .pid.
start_sshd() {
    local name=$1
    shift
    for _ in 1 2 3 4 5; do
        free_port >"$T/$name.port"
        /usr/sbin/sshd -f "$T/$name.conf" -p "$(<"$T/$name.port")" -o "PidFile=$T/$name.pid" \
            -E "$T/$name.log" "$@" && break
    done
    while [ ! -s "$T/$name.pid" ]; do sleep 0.05; done
}

# As above, with the NixOS configuration and options that differ, first come first served.
start_variant() {
    local name=$1
    shift
    cp "$T/nixos.conf" "$T/$name.conf"
    start_sshd "$name" "$@"
    address=127.0.0.1:$(<"$T/$name.port")
    known_as "$address" ed25519 >"$T/$name.known_hosts"
}

known_as() { # host:port, kind
    echo "[${1%:*}]:${1##*:} $(cut -d' ' -f1,2 "$T/host_$2.pub")"
}

connect() { # the client's arguments
    run -- timeout 60 "$client" -k "$T/known_hosts" "$@" </dev/null
}

# A peer of the test's own: perl code with the accepted socket in $c.
start_peer() {
    perl -MIO::Socket::INET -e '
        my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1") or die;
        open(my $f, ">", "$ARGV[0].new") or die; print $f $s->sockport; close($f);
        rename("$ARGV[0].new", $ARGV[0]);
        while (my $c = $s->accept) { $c->autoflush(1); eval $ARGV[1]; }' "$T/peer.port" "$1" 3>&- &
    peer=$!
    while [ ! -s "$T/peer.port" ]; do sleep 0.05; done
    address=127.0.0.1:$(<"$T/peer.port")
    rm "$T/peer.port"
}

@test "every kind of key file logs in to NixOS's and to OpenSSH's defaults" {
    for kind in ed25519 ecdsa rsa; do
        for address in "$NIXOS" "$DEFAULTS"; do
            connect -i "$T/id_$kind" "$address" 'echo $((6 * 7))'
            [ "$status" = 0 ]
            [ "$output" = 42 ]
        done
    done
    grep -q 'Accepted publickey.*RSA' "$T/nixos.log" || [ ! -s "$T/nixos.log" ]
}

@test "every kind of key logs in through the agent" {
    eval "$(ssh-agent)" >/dev/null
    for kind in ed25519 ecdsa rsa; do
        ssh-add -q "$T/id_$kind"
        connect -a "$NIXOS" 'echo in'
        [ "$output" = in ]
        ssh-add -q -D
    done
}

@test "the agent's key that a file names comes before seven others" {
    eval "$(ssh-agent)" >/dev/null
    for i in 1 2 3 4 5 6 7; do
        ssh-keygen -q -t ed25519 -N '' -f "$T/other$i"
        ssh-add -q "$T/other$i"
    done
    ssh-add -q "$T/id_ecdsa"
    connect -a -i "$T/id_ecdsa" "$NIXOS" 'echo in'
    [ "$output" = in ]
    connect -a "$NIXOS" 'echo in'
    [ "$status" = 200 ]
    [[ $output == *"auth-failed: "*"Too many authentication failures"* ]]
}

@test "an agent that waits for a person stops nobody else and is shown" {
    eval "$(ssh-agent)" >/dev/null
    ssh-add -q "$T/id_ecdsa"
    # The list of keys comes at once, the signature when the agent goes on.
    mkfifo "$T/gate"
    timeout 60 "$client" -k "$T/known_hosts" -a "$NIXOS" 'echo in' <"$T/gate" >"$T/touch.out" 2>&1 3>&- &
    waiting=$!
    exec 9>"$T/gate"
    sleep 0.05
    kill -STOP "$SSH_AGENT_PID"
    sleep 2.5
    kill -CONT "$SSH_AGENT_PID"
    exec 9>&-
    wait "$waiting"
    grep -q '^in$' "$T/touch.out"
}

@test "an encrypted key file is asked for once a run" {
    connect -n 5 -i "$T/id_locked" -P 'a passphrase' "$NIXOS" 'echo in'
    [ "$status" = 0 ]
    [ "$(grep -c 'asked for' <<<"$output")" = 1 ]
    [ "$(grep -c '^in$' <<<"$output")" = 5 ]
}

@test "a host that wants two keys one after the other is logged in to" {
    start_variant two -o AuthenticationMethods=publickey,publickey
    run -- timeout 60 "$client" -k "$T/two.known_hosts" -i "$T/id_ed25519" -i "$T/id_ecdsa" "$address" \
        'echo in' </dev/null
    [ "$output" = in ]
    # The channel that was asked for behind the first key's signature came too early for it.
    grep -q 'dispatch_protocol_error: type 90' "$T/two.log"
    [ "$(grep -c 'Accepted publickey' "$T/two.log")" = 1 ]
}

@test "a refused login names the keys that were tried and what the server takes" {
    connect -i "$T/id_stranger" -i "$T/nowhere" "$NIXOS" true
    [ "$status" = 200 ]
    print=$(ssh-keygen -l -f "$T/id_stranger.pub" | cut -d' ' -f2)
    [[ $output == "auth-failed: "*"tried ED25519 $print"*"the server would take publickey"*nowhere* ]]
}

@test "input, both outputs, the status and the signal come through" {
    run --separate-stderr timeout 20 "$client" -k "$T/known_hosts" -i "$T/id_ed25519" "$NIXOS" \
        'cat; echo error >&2; exit 7' <<<"some text"
    [ "$status" = 7 ]
    [ "$output" = "some text" ]
    [ "$stderr" = error ]
    connect -i "$T/id_ed25519" "$NIXOS" 'kill -KILL $$'
    [ "$status" = 201 ]
    [ "$output" = "signal KILL" ]
}

@test "a gigabyte goes there and comes back unchanged" {
    head -c 1G /dev/zero | openssl enc -aes-128-ctr -pass pass:x -nosalt 2>/dev/null >"$T/big"
    want=$(md5sum <"$T/big")
    got=$("$client" -k "$T/known_hosts" -i "$T/id_ed25519" "$NIXOS" 'cat' <"$T/big" | md5sum)
    rm "$T/big"
    [ "$got" = "$want" ]
}

@test "keys are exchanged again and again in mid-stream" {
    head -c 60M /dev/urandom >"$T/some"
    want=$(md5sum <"$T/some")
    for cipher in aes128-gcm@openssh.com aes128-ctr chacha20-poly1305@openssh.com; do
        start_variant "rekey-${cipher%@*}" -o "Ciphers=$cipher" -o 'RekeyLimit=2M'
        got=$(timeout 100 "$client" -k "$T/rekey-${cipher%@*}.known_hosts" -i "$T/id_ed25519" \
            "$address" 'cat' <"$T/some" | md5sum)
        [ "$got" = "$want" ]
    done
}

@test "thirty commands at once share a session of which sshd allows ten" {
    connect -e 30 -i "$T/id_ed25519" "$NIXOS" 'sleep 0.5; echo ran; exit 4'
    [ "$status" = 4 ]
    [ "$(grep -c ran <<<"$output")" = 30 ]
}

@test "two hundred connections at once" {
    start_variant crowd -o 'MaxStartups=500'
    run -- timeout 110 "$client" -k "$T/crowd.known_hosts" -n 200 -t 60000 -i "$T/id_ed25519" \
        "$address" 'echo in' </dev/null
    [ "$status" = 0 ]
    [ "$(grep -c '^in$' <<<"$output")" = 200 ]
}

@test "connections that sshd drops for MaxStartups are tried again" {
    start_variant dropping -o 'MaxStartups=3:60:20'
    run -- timeout 110 "$client" -k "$T/dropping.known_hosts" -n 30 -i "$T/id_ed25519" \
        "$address" 'echo in' </dev/null
    grep -q 'drop connection' "$T/dropping.log"
    [ "$(grep -c '^in$' <<<"$output")" = 30 ]
}

@test "an unknown, a changed and a revoked host key each have their own words" {
    : >"$T/empty"
    run -- "$client" -k "$T/empty" -i "$T/id_ed25519" "$NIXOS" true </dev/null
    [ "$status" = 200 ]
    [[ $output == "host-key-unknown: "*"$(known_as "$NIXOS" ed25519)"* ]]
    { echo; known_as "$NIXOS" ecdsa | sed "s#ecdsa-sha2.*#$(cut -d' ' -f1,2 "$T/id_ed25519.pub")#"; } >"$T/changed"
    run -- "$client" -k "$T/changed" -i "$T/id_ed25519" "$NIXOS" true </dev/null
    [ "$status" = 200 ]
    for key in id_ed25519 host_ed25519; do
        [[ $output == "host-key-changed: "*"$T/changed:2 "*"$(ssh-keygen -l -f "$T/$key.pub" | cut -d' ' -f2)"* ]]
    done
    { known_as "$NIXOS" ed25519; echo "@revoked * $(cut -d' ' -f1,2 "$T/host_ed25519.pub")"; } >"$T/revoked"
    run -- "$client" -k "$T/revoked" -i "$T/id_ed25519" "$NIXOS" true </dev/null
    [ "$status" = 200 ]
    [[ $output == "host-key-revoked: "* ]]
}

@test "a host that is known by one kind of key is asked for that one" {
    for kind in rsa ecdsa ed25519; do
        known_as "$NIXOS" $kind >"$T/one-kind"
        run -- "$client" -k "$T/one-kind" -i "$T/id_ed25519" "$NIXOS" 'echo in' </dev/null
        [ "$output" = in ]
        run -- "$client" -H "$(cut -d' ' -f1,2 "$T/host_$kind.pub")" -i "$T/id_ed25519" "$NIXOS" \
            'echo in' </dev/null
        [ "$output" = in ]
    done
}

@test "new keys are accepted once, or found by a scan beforehand" {
    run -- "$client" -k "$T/new/known_hosts" -c accept-new -i "$T/id_ed25519" "$NIXOS" 'echo in' </dev/null
    [ "$output" = in ]
    [ "$(stat -c %a "$T/new/known_hosts")" = 600 ]
    run -- "$client" -k "$T/new/known_hosts" -i "$T/id_ed25519" "$NIXOS" 'echo in' </dev/null
    [ "$output" = in ]
    run -- "$client" -k "$T/scanned" -S "$NIXOS" x
    [[ $output == "[127.0.0.1]:"*" ED25519 SHA256:"* ]]
    run -- "$client" -k "$T/scanned" -S "$NIXOS" x
    [ "$output" = "" ]
    run -- "$client" -k "$T/scanned" -i "$T/id_ed25519" "$NIXOS" 'echo in' </dev/null
    [ "$output" = in ]
}

@test "addresses are tried in order, IPv6 among them" {
    port=${NIXOS##*:}
    start_variant six -o 'ListenAddress=[::1]'
    port=${address##*:}
    connect -c off -i "$T/id_ed25519" "127.0.0.1:1,[::1]:$port" 'echo in'
    [ "$status" = 0 ]
    [[ $output == *"notice: 127.0.0.1 port 1 refuses"*in ]]
    connect -i "$T/id_ed25519" 127.0.0.1:1,127.0.0.2:1 true
    [ "$status" = 200 ]
    [[ $output == *"connection-refused: 127.0.0.1 port 1 refuses"*"127.0.0.2 port 1 refuses"* ]]
    connect -t 3000 -i "$T/id_ed25519" no-such-host.invalid:22 true
    [[ $output == "name-not-found: "*no-such-host.invalid* ]]
}

@test "a peer that accepts and then says nothing ends at the deadline" {
    start_peer 'push(@keep, $c)'
    SECONDS=0
    connect -t 1000 -i "$T/id_ed25519" "$address" true
    [ "$status" = 200 ]
    [[ $output == "connect-timeout: "*"accepted the connection and then did not finish"* ]]
    [ "$SECONDS" -lt 5 ]
}

@test "a peer that is no sshd is named as such" {
    start_peer '$c->print("HTTP/1.0 400 Bad Request\r\n\r\n"); close($c)'
    connect -i "$T/id_ed25519" "$address" true
    [[ $output == "not-ssh: "*"HTTP/1.0 400 Bad Request"* ]]
    kill $peer
    start_peer 'close($c)'
    connect -t 10000 -i "$T/id_ed25519" "$address" true
    [[ $output == "connection-closed: "* ]]
    kill $peer
    start_peer '$c->print("SSH-2.0-OpenSSH_9.2p1\r\n"); close($c)'
    connect -t 10000 -i "$T/id_ed25519" "$address" true
    [[ $output == "connection-closed: "* ]]
    kill $peer
    start_peer '$c->print("SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff"); sleep 1; close($c)'
    connect -t 5000 -i "$T/id_ed25519" "$address" true
    [ "$status" = 200 ]
    [[ $output == "handshake-failed: "* || $output == "connection-closed: "* ]]
}

@test "no algorithm in common: both lists" {
    start_variant kex -o KexAlgorithms=sntrup761x25519-sha512@openssh.com
    connect -i "$T/id_ed25519" "$address" true
    [[ $output == "no-common-algorithm: "*"no key exchange algorithm"*"offers sntrup761x25519-sha512"*"fleet has curve25519-sha256,"* ]]
    start_variant mac -o Ciphers=aes256-ctr -o MACs=umac-64@openssh.com
    connect -i "$T/id_ed25519" "$address" true
    [[ $output == "no-common-algorithm: "*"no MAC algorithm"*umac-64*hmac-sha2-256-etm* ]]
    start_variant hostkey -o HostKeyAlgorithms=ssh-rsa
    connect -i "$T/id_ed25519" "$address" true
    [[ $output == "no-common-algorithm: "*"no host key algorithm"*"offers ssh-rsa;"* ]]
}

@test "an sshd that dies in mid-stream is a lost connection" {
    connect -i "$T/id_ed25519" "$NIXOS" 'echo going; kill -9 $PPID; sleep 5'
    [ "$status" = 200 ]
    [[ $output == *"connection-lost: "* ]]
}

@test "a peer that has gone silent is noticed by keepalives" {
    SECONDS=0
    connect -K 2000 -i "$T/id_ed25519" "$NIXOS" 'kill -STOP $PPID; sleep 20; kill -CONT $PPID'
    [ "$status" = 200 ]
    [[ $output == "keepalive-timeout: "* ]]
    [ "$SECONDS" -lt 15 ]
    # One that only has nothing to say stays.
    connect -K 2000 -i "$T/id_ed25519" "$NIXOS" 'sleep 9; echo still'
    [ "$output" = still ]
}

@test "jump hosts to any depth, with one session for all" {
    before=$(grep -c 'Accepted publickey' "$T/defaults.log")
    connect -n 20 -i "$T/id_ed25519" -J "$DEFAULTS" "$NIXOS" 'echo in'
    [ "$status" = 0 ]
    [ "$(grep -c '^in$' <<<"$output")" = 20 ]
    [ "$(grep -c 'Accepted publickey' "$T/defaults.log")" = $((before + 1)) ]
    connect -i "$T/id_ed25519" -J "$NIXOS" -J "$DEFAULTS" "$NIXOS" 'echo deep'
    [ "$output" = deep ]
    connect -i "$T/id_ed25519" -J "$DEFAULTS" 127.0.0.1:1 true
    [[ $output == "tunnel-refused: "*"127.0.0.1 port 1"* ]]
    connect -i "$T/id_ed25519" -J 127.0.0.1:1 "$NIXOS" true
    [[ $output == "connection-refused: jump host jumphost: 127.0.0.1 port 1 "* ]]
    head -c 30M /dev/urandom >"$T/through"
    got=$("$client" -k "$T/known_hosts" -i "$T/id_ed25519" -J "$DEFAULTS" "$NIXOS" 'cat' <"$T/through" | md5sum)
    [ "$got" = "$(md5sum <"$T/through")" ]
}

@test "a dead host behind a jump host does not hold up the others" {
    # A listener whose queue is full: a connection to it is neither made nor refused.
    perl -MIO::Socket::INET -e '
        my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die;
        listen($s, 0);
        my @c = map { IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $s->sockport,
            Blocking => 0) } 1 .. 4;
        open(my $f, ">", "$ARGV[0].new"); print $f $s->sockport; close($f);
        rename("$ARGV[0].new", $ARGV[0]);
        sleep(60)' "$T/dead.port" 3>&- &
    peer=$!
    while [ ! -s "$T/dead.port" ]; do sleep 0.05; done
    dead=127.0.0.1:$(<"$T/dead.port")
    # Each client tries the dead address first, then the living one: all are held up together.
    SECONDS=0
    connect -t 3000 -n 6 -i "$T/id_ed25519" -J "$DEFAULTS" "$dead,$NIXOS" 'echo in'
    echo "$output"
    [ "$status" = 0 ]
    [ "$(grep -c '^in$' <<<"$output")" = 6 ]
    [ "$(grep -c 'the jump host did not get through' <<<"$output")" = 6 ]
    [ "$SECONDS" -lt 18 ]
}

@test "closing in any phase leaves nothing behind" {
    for ms in 1 2 3 5 8 12 16 20 25 30 40 50 70 100 150 250; do
        connect -X $ms -n 2 -e 3 -i "$T/id_rsa" -J "$DEFAULTS" "$NIXOS" 'sleep 0.1; echo'
        [ "$status" = 0 ] || [ "$status" = 200 ]
        [[ $output != *Sanitizer* ]]
    done
}

@test "every descriptor of a connection is closed on exec" {
    eval "$(ssh-agent)" >/dev/null
    ssh-add -q "$T/id_ecdsa"
    # bats's own descriptors are closed first.
    bash -c 'for fd in /proc/$$/fd/*; do fd=${fd##*/}; [ $fd -le 2 ] || eval "exec $fd>&-"; done
        exec "$@"' _ "$client" -k "$T/known_hosts" -a -J "$DEFAULTS" "$NIXOS" 'echo in; sleep 30' \
        </dev/null >"$T/open.out" 2>&1 &
    peer=$!
    for _ in $(seq 100); do grep -q in "$T/open.out" && break; sleep 0.1; done
    count=0
    for info in /proc/$peer/fdinfo/*; do
        [ "${info##*/}" -gt 2 ] || continue
        flags=$(sed -n 's/^flags:\t//p' "$info")
        echo "${info##*/}: $flags $(readlink "/proc/$peer/fd/${info##*/}")"
        [ $((flags & 02000000)) != 0 ]
        count=$((count + 1))
    done
    [ "$count" -ge 3 ]
}
