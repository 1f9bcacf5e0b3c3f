# As much of nixpkgs as package.nix and flake.nix touch, so that both can be evaluated where no
# nixpkgs is to be had. A dependency that is not named here fails the evaluation.
{ libssh2Version ? "1.11.1" }:
let
  package = name: version: {
    inherit name version;
    outPath = "/stub/${name}";
  };

  lib = {
    assertMsg = condition: message: condition || throw message;
    versionAtLeast = a: b: builtins.compareVersions a b >= 0;
    cleanSourceFilter = path: type: baseNameOf path != ".git";
    cleanSourceWith = source: source;
    cmakeBool = name: value: "-D${name}:BOOL=${if value then "ON" else "OFF"}";
    cmakeFeature = name: value: "-D${name}:STRING=${value}";
    makeBinPath = packages: builtins.concatStringsSep ":" (map (p: "${p}/bin") packages);
    genAttrs = names: f: builtins.listToAttrs (map (name: { inherit name; value = f name; }) names);
    platforms.linux = [ "x86_64-linux" ];
  };

  pkgs = system: rec {
    inherit lib;
    stdenv = {
      mkDerivation = arguments: arguments // { type = "derivation"; };
      hostPlatform = { inherit system; };
    };
    mkShell = arguments: arguments;
    callPackage = file: overrides:
      let function = import file;
      in function (builtins.intersectAttrs (builtins.functionArgs function) all // overrides);
    all = pkgs system // tools;
  } // tools;

  tools = builtins.listToAttrs (map (name: { inherit name; value = package name "1"; }) [
    "bats" "cjson" "clang-tools" "cmake" "cppcheck" "criterion" "curl" "git" "jq" "libgit2" "libuv"
    "makeWrapper" "ncurses" "ninja" "nix" "openssh" "openssl" "pkg-config" "shellcheck" "zstd"
  ]) // {
    libssh2 = package "libssh2" libssh2Version;
    python3 = package "python3" "1" // {
      withPackages = choose: package "python3-with-${(builtins.head (choose { jsonschema.name = "jsonschema"; })).name}" "1";
    };
  };
in
{
  inherit lib pkgs;
  nixpkgs = {
    inherit lib;
    legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] pkgs;
  };
}
