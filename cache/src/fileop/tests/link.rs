//! `COPY --link`: the same copy onto scratch, whose layer is stacked later.

use super::world::*;

#[test]
fn a_layer_over_scratch_means_the_same_on_any_parent() {
    let Some(world) = world() else { return };
    let input = world.context(&[("f", "f", 0o644), ("sub/leaf", "leaf", 0o600)]);
    let actions = copies(&[("f", "/los/dirlink/f"), ("sub", "/ldw/app")]);
    let got = world.run(&world.scratch(), &input, actions).unwrap();
    assert_eq!(got.layer, ["ldw/", "ldw/app/", "ldw/app/leaf", "los/", "los/dirlink/", "los/dirlink/f"]);

    let base = world.chain("d 0711 0:0 los\nd 0755 0:0 los/real\nl los/dirlink -> real");
    let root = world.trees.apply(base.base.root, &got.output.layer.entries).unwrap();
    let want = [
        "ldw 755 0:0 d",
        "ldw/app 755 0:0 d",
        "ldw/app/leaf 600 0:0",
        "los 755 0:0 d",
        "los/dirlink 755 0:0 d",
        "los/dirlink/f 644 0:0",
        "los/real 755 0:0 d",
    ];
    assert_eq!(short(&in_tree(&world.trees, &root)), want);
}
