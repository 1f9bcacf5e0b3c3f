# One attribute a host, for `{"file": "default.nix", "attr": "h1", "args": {"version": "v2"}}`, and
# `common`: the same system for whichever host, so that many hosts share one closure.
#
# `bad` names one host whose system does not evaluate; the others must not care.
{ version ? "v1", variant ? "good", paths ? "0", bytes ? "0", port ? "8080", bad ? "" }:

let
  make = name: import ./system.nix {
    inherit name version paths bytes port;
    variant = if name == bad then "fail-eval" else variant;
  };
  names = builtins.genList (i: "h${toString (i + 1)}") 250;
in
builtins.listToAttrs (map (name: { inherit name; value = make name; }) names)
// { common = make "testbed"; }
