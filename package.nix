# fleet as a Nix package: pkgs.callPackage ./package.nix { }
{
  lib,
  stdenv,
  cmake,
  ninja,
  pkg-config,
  makeWrapper,
  cjson,
  criterion,
  curl,
  git,
  libgit2,
  libssh2,
  libuv,
  ncurses,
  nix,
  openssh,
  openssl,
  python3,
  zstd,
  # The flake's `checks` turn it on: whoever only wants to run fleet needs none of the tests' tools.
  doCheck ? false,
}:

# Older ones have no encrypt-then-MAC MAC, so they cannot talk to a default NixOS sshd.
assert lib.assertMsg (lib.versionAtLeast libssh2.version "1.11.1")
  "fleet needs libssh2 1.11.1 or newer, this nixpkgs has ${libssh2.version}";

stdenv.mkDerivation {
  pname = "fleet";
  version = "0.1.0";

  src = lib.cleanSourceWith {
    src = ./.;
    # The build folder of a working tree holds other machines' objects.
    filter =
      path: type:
      lib.cleanSourceFilter path type && !(type == "directory" && baseNameOf path == "build");
  };

  strictDeps = true;

  nativeBuildInputs = [
    cmake
    ninja
    pkg-config
    makeWrapper
  ];

  buildInputs = [
    cjson
    curl
    libgit2
    libssh2
    libuv
    ncurses
    openssl
    zstd
  ];

  checkInputs = [ criterion ];

  # Programs that the unit tests run.
  nativeCheckInputs = [
    git
    nix
    openssh
    openssl
    (python3.withPackages (ps: [ ps.jsonschema ]))
    zstd
  ];

  cmakeFlags = [
    (lib.cmakeBool "FLEET_TESTS" doCheck)
    (lib.cmakeFeature "FLEET_CCACHE" "")
  ];

  inherit doCheck;

  postPatch = ''
    patchShebangs tests
  '';

  # The others start hosts of their own, build into this machine's store, or log in through sudo,
  # all of which a build sandbox has no room for.
  checkPhase = ''
    runHook preCheck
    ctest -L '^(unit|pipeline)$' -E '^unit/test_(build|copy_versions|elevate)$' --no-tests=error --output-on-failure
    runHook postCheck
  '';

  # `ssh -G` reads ~/.ssh/config; the user's own ssh comes first. Nix is the user's.
  postInstall = ''
    wrapProgram "$out/bin/fleet" --suffix PATH : ${lib.makeBinPath [ openssh ]}
  '';

  meta = {
    description = "Rolls a Git repository of NixOS machines out to running, healthy hosts, and takes them back when they are not";
    mainProgram = "fleet";
    platforms = lib.platforms.linux;
  };
}
