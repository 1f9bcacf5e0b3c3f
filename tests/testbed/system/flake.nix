# A flake shaped like that of a fleet of NixOS hosts. `testbed flake` copies this folder and puts
# the hosts' settings beside it, in hosts.json: {"h1": {"version": "v1", "variant": "good"}}.
{
  description = "Testbed systems that look like NixOS";

  outputs = { self }:
    let
      hosts = builtins.fromJSON (builtins.readFile ./hosts.json);
    in {
      nixosConfigurations = builtins.mapAttrs
        (name: settings: {
          config.system.build.toplevel =
            import ./system.nix ({ inherit name; } // settings);
        })
        hosts;
    };
}
