{
  description = "fleet: NixOS rollouts in waves, probed, and taken back by themselves";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      overlays.default = final: _previous: {
        fleet = final.callPackage ./package.nix { };
      };

      packages = eachSystem (pkgs: rec {
        fleet = pkgs.callPackage ./package.nix { };
        default = fleet;
      });

      # What scripts/lint and scripts/test use; the end-to-end tests themselves want Debian 12.
      devShells = eachSystem (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ self.packages.${pkgs.stdenv.hostPlatform.system}.fleet ];
          packages = [
            pkgs.bats
            pkgs.clang-tools
            pkgs.cppcheck
            pkgs.jq
            pkgs.python3
            pkgs.shellcheck
          ];
        };
      });

      checks = eachSystem (pkgs: {
        fleet = pkgs.callPackage ./package.nix { doCheck = true; };
      });
    };
}
