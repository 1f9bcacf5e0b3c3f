# One look-alike of a NixOS system: a toplevel with the layout, the order of events and the exit
# codes of the real one (NIX-PROTOCOL.md, section 9), made without nixpkgs. /bin/sh is the builder
# and the machine's own programs are used, so the sandbox has to be off.
#
# All arguments are strings, because an inventory's `args` are (--argstr).
{ name ? "testbed"            # the host's name; hosts that share it share the whole closure
, version ? "v1"              # what /version answers, and part of the package versions
, variant ? "good"            # see `variants` below
, paths ? "0"                 # extra store paths, new with each version
, bytes ? "0"                 # their size together
, content ? "random"          # of these bytes: "random" doesn't compress, "programs" is from /usr
, address ? ""                # where web.service listens; "": what the host's own file says
, port ? "8080"
, system ? builtins.currentSystem or "x86_64-linux"
}:

let
  variants = [
    "good" "fail-eval" "fail-build" "fail-activate" "exec-format" "unit-fails" "dies-after-5s"
    "http-500" "crash-loop" "breaks-sshd" "no-network" "hangs" "reboot" "init-interface"
  ];

  # "v12" counts as 12 in package versions, anything else as it stands.
  number = let m = builtins.match "v([0-9]+)" version; in
    if m == null then version else builtins.head m;

  path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

  run = drvName: script: env: derivation ({
    name = drvName;
    inherit system;
    builder = "/bin/sh";
    args = [ "-euc" script ];
    PATH = path;
  } // env);

  # A package with some bytes that don't compress and a reference to each of `needs`. The bytes
  # follow from the name alone, so that two machines build the same.
  package = pkg: size: needs: run pkg ''
    mkdir -p "$out/share"
    openssl enc -aes-128-ctr -nosalt -K "$seed" -iv 00 </dev/zero 2>/dev/null |
      head -c "$size" >"$out/share/data"
    for need in $needs; do printf '%s\n' "$need"; done >"$out/share/needs"
  '' { seed = builtins.hashString "md5" pkg; size = toString size; inherit needs; };

  glibc = package "glibc-2.38-44" 60000 [ ];
  openssl = package "openssl-3.0.13" 40000 [ glibc ];
  systemd = package "systemd-255.4" 50000 [ glibc openssl ];
  libgreet = package "libgreet-1.${number}.0" 9000 [ glibc ];
  libfoo = package "libfoo-1.2.${number}" 12000 [ glibc libgreet ];

  kernelVersion = if variant == "reboot" then "6.6.${number}" else "6.6.0";
  linux = run "linux-${kernelVersion}" ''
    mkdir -p "$out/lib/modules/$kernel"
    openssl enc -aes-128-ctr -nosalt -K "$seed" -iv 00 </dev/zero 2>/dev/null |
      head -c 200000 >"$out/bzImage"
    printf 'testbed modules of %s\n' "$kernel" >"$out/lib/modules/$kernel/modules.order"
  '' { kernel = kernelVersion; seed = builtins.hashString "md5" kernelVersion; };
  initrd = run "initrd-linux-${kernelVersion}" ''
    mkdir -p "$out"
    openssl enc -aes-128-ctr -nosalt -K "$seed" -iv 00 </dev/zero 2>/dev/null |
      head -c 300000 >"$out/initrd"
    printf '%s\n' "$linux" >"$out/modules-from"
  '' { inherit linux; seed = builtins.hashString "md5" "initrd ${kernelVersion}"; };

  # Extra paths come out of derivations with many outputs each: one builder run makes fifty of
  # them, which is what keeps 500 paths under a second or two.
  extraCount = builtins.fromJSON paths;
  extraBytes = if extraCount == 0 then 0 else (builtins.fromJSON bytes) / extraCount;
  perChunk = 50;
  chunk = c:
    let
      first = c * perChunk;
      last = if first + perChunk < extraCount then first + perChunk else extraCount;
      outs = builtins.genList (k: "part${toString (first + k)}") (last - first);
      drv = run "libextra${toString c}-1.${number}.3" ''
        random() { openssl enc -aes-128-ctr -nosalt -K "$seed" -iv 00 </dev/zero 2>/dev/null; }
        # Every third file, so that no big library is all there is; over and over where they are few.
        programs() {
          echo "$seed"
          while find /usr/lib /usr/share -xdev -type f -size +15k | LC_ALL=C sort | sed -n '0~3p' |
            tr '\n' '\000' | xargs -0 cat; do :; done 2>/dev/null
        }
        "$content" | {
          previous=$glibc
          for o in $outputs; do
            eval "p=\$$o"
            mkdir -p "$p"
            head -c "$size" >"$p/data"
            printf '%s\n' "$previous" >"$p/needs"
            previous=$p
          done
        }
      '' {
        outputs = outs;
        inherit glibc content;
        size = toString extraBytes;
        seed = builtins.hashString "md5" "extra ${toString c} ${version} ${paths} ${bytes}";
      };
    in map (o: drv.${o}) outs;
  extras = builtins.concatLists
    (builtins.genList chunk ((extraCount + perChunk - 1) / perChunk));

  webServer = run "web-server-1.${number}.0" ''
    if [ "$variant" = fail-build ]; then
      echo "compiling greet.c"
      echo "greet.c:7:12: error: 'struct greeting' has no member named 'colour'" >&2
      echo "make: *** [Makefile:3: greet.o] Error 1" >&2
      exit 1
    fi
    mkdir -p "$out/bin"
    { printf '#!/usr/bin/perl\n# needs %s\n' "$libfoo"
      printf 'our ($version, $behaviour) = ("%s", "%s");\n' "$version" "$behaviour"
      cat "$source"
    } >"$out/bin/web-server"
    chmod +x "$out/bin/web-server"
  '' {
    inherit version libfoo;
    variant = if variant == "fail-build" then variant else "good";
    behaviour =
      if builtins.elem variant [ "dies-after-5s" "http-500" "crash-loop" ] then variant else "good";
    source = ./web-server.pl;
  };

  # What systemd reads, as /etc/systemd/system on a NixOS host: links into the store. Beside each
  # service lies the same command as a script, for hosts without systemd.
  units = run "system-units" ''
    mkdir -p "$out/multi-user.target.wants" "$out/sockets.target.wants" "$out/plain"
    want() { ln -s "../$1" "$out/multi-user.target.wants/$1"; }
    plain() { # name, command: how a host without systemd runs it
      printf '#!/bin/sh\nexec %s\n' "$2" >"$out/plain/$1"
      chmod +x "$out/plain/$1"
    }

    restart=
    [ "$variant" != crash-loop ] || restart=$(printf '\nRestart=always\nRestartSec=3')
    cat >"$out/web.service" <<UNIT
    [Unit]
    Description=The look-alike's web service, $version
    [Service]
    Type=exec
    ExecStart=$webServer/bin/web-server $port $address$restart
    UNIT
    want web.service
    plain web.service "$webServer/bin/web-server $port $address"

    cat >"$out/worker.service" <<UNIT
    [Unit]
    Description=A service that no version changes
    [Service]
    ExecStart=/usr/bin/sleep infinity
    UNIT
    want worker.service
    plain worker.service "/usr/bin/sleep infinity"

    if [ "$variant" != breaks-sshd ]; then
      # As on NixOS: restarted in one step, and the sessions survive it.
      cat >"$out/sshd.service" <<UNIT
    [Unit]
    Description=SSH daemon
    X-StopIfChanged=false
    [Service]
    Type=notify
    RuntimeDirectory=sshd
    RuntimeDirectoryPreserve=yes
    ExecStart=/usr/sbin/sshd -D -f /etc/ssh/sshd_config -E /var/log/sshd.log
    KillMode=process
    Restart=always
    UNIT
      want sshd.service
      plain sshd.service "/usr/sbin/sshd -D -f /etc/ssh/sshd_config -E /var/log/sshd.log"
    fi

    cat >"$out/nix-daemon.socket" <<UNIT
    [Unit]
    Description=Nix Daemon Socket
    [Socket]
    ListenStream=/nix/var/nix/daemon-socket/socket
    UNIT
    ln -s ../nix-daemon.socket "$out/sockets.target.wants/nix-daemon.socket"
    cat >"$out/nix-daemon.service" <<UNIT
    [Unit]
    Description=Nix Daemon
    X-RestartIfChanged=true
    [Service]
    ExecStart=/usr/bin/nix-daemon --daemon
    KillMode=process
    UNIT

    case $variant in
    unit-fails)
      cat >"$out/migrate.service" <<UNIT
    [Unit]
    Description=A migration that fails
    [Service]
    Type=oneshot
    RemainAfterExit=yes
    ExecStart=/bin/sh -c 'echo "migrate: relation \"greetings\" does not exist" >&2; exit 1'
    UNIT
      want migrate.service
      plain migrate.service "/bin/false"
      ;;
    no-network)
      cat >"$out/network-gone.service" <<UNIT
    [Unit]
    Description=Takes the network away
    [Service]
    Type=oneshot
    RemainAfterExit=yes
    ExecStart=/usr/lib/fleet-testbed/network down
    ExecStop=/usr/lib/fleet-testbed/network up
    UNIT
      want network-gone.service
      plain network-gone.service "/usr/lib/fleet-testbed/network down stay"
      ;;
    esac
  '' {
    inherit variant version webServer port address;
  };

  systemPath = run "system-path" ''
    mkdir -p "$out/bin" "$out/share"
    for program in $programs; do
      found=$(command -v "$program" || true)
      [ -z "$found" ] || [ "$found" = "$program" ] || ln -s "$found" "$out/bin/$program"
    done
    printf '%s\n' $needs >"$out/share/needs"
  '' {
    needs = [ systemd openssl libfoo ] ++ extras;
    programs = [
      "sh" "bash" "cat" "cp" "cut" "chmod" "chown" "date" "dd" "df" "du" "env" "false" "find"
      "flock" "grep" "head" "hostname" "id" "install" "journalctl" "kill" "ln" "ls" "mkdir"
      "mktemp" "mount" "mv" "nix" "nix-build" "nix-channel" "nix-collect-garbage" "nix-daemon"
      "nix-env" "nix-hash" "nix-instantiate" "nix-store" "nohup" "od" "ps" "readlink" "realpath"
      "rm" "rmdir" "sed" "seq" "setsid" "sha256sum" "sleep" "sort" "stat" "stty" "sudo" "sync"
      "systemctl" "systemd-run" "tail" "tar" "tee" "timeout" "touch" "tr" "true" "uname" "uniq"
      "wc" "whoami" "xargs" "zstd"
    ];
  };

  etc = run "etc" ''
    mkdir -p "$out/etc/systemd"
    ln -s "$units" "$out/etc/systemd/system"
    printf 'ID=nixos\nNAME=NixOS\nVERSION_ID="24.05"\nPRETTY_NAME="Testbed %s"\n' "$version" \
      >"$out/etc/os-release"
    : >"$out/etc/NIXOS"
  '' { inherit units version; };

  toplevelName = "nixos-system-${name}-24.05.${number}";

  toplevel = run toplevelName ''
    mkdir -p "$out/bin"
    ln -s "$linux/bzImage" "$out/kernel"
    ln -s "$linux" "$out/kernel-modules"
    ln -s "$initrd/initrd" "$out/initrd"
    ln -s "$etc/etc" "$out/etc"
    ln -s "$systemPath" "$out/sw"
    ln -s "$systemd" "$out/systemd"
    printf 'loglevel=4' >"$out/kernel-params"
    printf '24.05.%s' "$number" >"$out/nixos-version"
    printf '%s' "$system" >"$out/system"
    printf '%s' "$interface" >"$out/init-interface-version"
    fill() {
      sed -e "s|@out@|$out|g" -e "s|@variant@|$variant|g" "$1" >"$2"
      chmod +x "$2"
    }
    fill "$initSource" "$out/init"
    fill "$activateSource" "$out/activate"
    fill "$bootloaderSource" "$out/install-bootloader"
    if [ "$variant" = exec-format ]; then
      # A program for another processor: an ELF header of machine 0x9999.
      printf '\177ELF\002\001\001\000\000\000\000\000\000\000\000\000\002\000\231\231\001' \
        >"$out/bin/switch-to-configuration"
      chmod +x "$out/bin/switch-to-configuration"
    else
      fill "$switchSource" "$out/bin/switch-to-configuration"
    fi
  '' {
    inherit linux initrd etc systemPath systemd variant number;
    interface = if variant == "init-interface" then "systemd 3" else "systemd 2";
    initSource = ./init.sh;
    activateSource = ./activate.sh;
    bootloaderSource = ./install-bootloader.sh;
    switchSource = ./switch-to-configuration.sh;
  };
in
if !(builtins.elem variant variants) then
  throw "testbed: no variant '${variant}'; there are ${builtins.concatStringsSep ", " variants}"
else if variant == "fail-eval" then
  throw "testbed: The option `services.web.colour' does not exist (host ${name}, version ${version})"
else
  toplevel
