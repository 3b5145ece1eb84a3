//! A large COPY of which little changed: only that is written, and nothing shows the difference.

use std::path::Path;

use tests::archive::Image;
use tests::{Scene, ready};

/// Files that stay the same: enough for the copy to be kept thin.
const FILES: usize = 800;

const STEPS: &str = "FROM base
RUN mkdir -p /app/d && echo below > /app/d/below
COPY . /app/
RUN cd /app && rm d/f1 && echo more >> d/f3 && mkdir d/made && mv d/f5 d/made/ && find . | sort | xargs stat -c '%n %a %u %h' > /listed && cat d/* 2>/dev/null | md5sum
";

fn fill(context: &Path) {
    for n in 0..FILES {
        fs_err::write(context.join(format!("d/f{n}")), format!("{n}\n")).unwrap();
    }
    for (name, text) in [("one", "1"), ("gone", "2"), ("kind", "3")] {
        fs_err::write(context.join(name), text).unwrap();
    }
}

fn change(context: &Path) {
    fs_err::write(context.join("one"), "another").unwrap();
    fs_err::write(context.join("d/new"), "new").unwrap();
    for gone in ["gone", "kind", "d/f7"] {
        fs_err::remove_file(context.join(gone)).unwrap();
    }
    fs_err::create_dir(context.join("kind")).unwrap();
    fs_err::write(context.join("kind/in"), "a file in it").unwrap();
}

/// The image that the context gives.
fn build(scene: &Scene) -> Image {
    let archive = scene.path("image.tar");
    let dest = format!("type=oci,dest={},rewrite-timestamp=true", archive.display());
    let fixed = ["--build-arg", "SOURCE_DATE_EPOCH=1000000000", "-o", &dest];
    scene.build(&fixed).ok();
    Image::open(&archive)
}

/// How many layers in the store have a file that never changes.
fn copies(scene: &Scene) -> usize {
    let layers = fs_err::read_dir(scene.daemon.root().join("snapshots")).unwrap();
    layers.filter(|layer| layer.as_ref().unwrap().path().join("fs/app/d/f100").exists()).count()
}

fn check(scene: &Scene) {
    scene.write("Dockerfile", STEPS);
    fs_err::create_dir(scene.context().join("d")).unwrap();
    fill(&scene.context());
    build(scene);
    change(&scene.context());
    let thin = build(scene);
    assert_eq!(copies(scene), 1, "the second copy is thin");

    scene.build(&["-t", "thin"]).ok();
    let shown = scene.run(&["run", "--rm", "thin", "sh", "-c", "cat /app/one /app/kind/in; ls /app"]).ok();
    assert_eq!(shown.stdout, "anothera file in itDockerfile\nd\nkind\none\n");

    scene.run(&["rmi", "thin"]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    assert_eq!(copies(scene), 0, "a thin layer and what it needs go together");
    let whole = build(scene);
    assert!(thin.listing == whole.listing && thin.layers == whole.layers, "the images differ");
}

#[test]
fn nothing_shows_the_difference() {
    if !ready() {
        return;
    }
    check(&Scene::new());
}

#[test]
fn nor_without_overlays() {
    if !ready() {
        return;
    }
    check(&Scene::mounting("copy"));
}
