//! Each way to bring layers together gives the same layers.

use std::path::Path;

use tests::archive::Image;
use tests::{Daemon, Scene, base, output, ready};

/// Steps that change what lies below them in every way.
const STEPS: &str = r#"FROM base AS other
RUN mkdir -p /o/d && echo o > /o/d/f
FROM base
RUN mkdir -p /a/d /a/e && echo 1 > /a/d/f && ln /a/d/f /a/d/hard && ln -s f /a/d/soft && mkfifo /a/p && chmod 2755 /a/e
RUN rm /a/d/f && echo more >> /a/d/hard && chown 1:2 /a/e && ln /a/d/hard /a/link
RUN rm -r /a/d && mkdir /a/d && echo again > /a/d/new
COPY --from=other /o /a/o
RUN --mount=type=bind,from=other,source=/o,target=/b cat /b/d/f > /a/bound && ! touch /b/x 2>/dev/null
RUN --mount=type=bind,from=other,source=/o,target=/b,rw touch /b/x && ls /b > /a/listed
RUN chmod 600 /a/bound && chmod 644 /a/bound
RUN rm /a/p && ln -s /a/e /a/p && echo x > /a/p/through
WORKDIR /a/made/here
RUN pwd > where
CMD ["cat", "where", "/a/listed", "/a/link"]
"#;

fn build(scene: &Scene) -> Image {
    let archive = scene.path("image.tar");
    let dest = format!("type=oci,dest={}", archive.display());
    scene.dockerfile(STEPS, &["-o", &dest]).ok();
    scene.build(&["-t", "x"]).ok();
    assert_eq!(scene.run(&["run", "--rm", "x"]).ok().stdout, "/a/made/here\nd\nx\n1\nmore\n");
    Image::open(&archive)
}

#[test]
fn all_ways_give_the_same_layers() {
    if !ready() {
        return;
    }
    let expected = build(&Scene::new());
    for way in ["descriptors", "names", "classic", "copy"] {
        let scene = Scene::mounting(way);
        let made = build(&scene);
        assert_eq!(made.listing, expected.listing, "{way}");
        assert_eq!(made.layers, expected.layers, "{way}");
        let copies = "overlays cannot be mounted";
        let log = fs_err::read_to_string(scene.daemon.log()).unwrap();
        let version = scene.run(&["version", "--daemon"]).ok().stdout;
        let warned = scene.build(&["--no-cache", "-t", "x"]).ok().stderr;
        for (what, told) in [("log", log), ("version", version), ("build", warned)] {
            assert_eq!(told.contains(copies), way == "copy", "{way}: {what}: {told}");
        }
    }
}

#[test]
fn an_unknown_way_is_an_error() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(tests::program());
    command.env("RBUILD_OVERLAY", "magic").arg("daemon").arg("--root").arg(dir.path().join("root"));
    let out = output(command.args(["--addr", "unix:///nowhere/at/all"])).fails();
    assert!(out.stderr.contains("`RBUILD_OVERLAY` is `magic`"), "{}", out.stderr);
}

/// An overlay, unmounted when dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        output(std::process::Command::new("umount").arg(self.0)).ok();
    }
}

/// A root within a container of another engine lies on an overlay, which cannot carry the writable part of another.
#[test]
fn a_root_on_an_overlay_works_by_copying() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [lower, upper, work, at] = ["lower", "upper", "work", "at"].map(|name| dir.path().join(name));
    for path in [&lower, &upper, &work, &at] {
        fs_err::create_dir(path).unwrap();
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let mut mount = std::process::Command::new("mount");
    output(mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(&at)).ok();
    let mounted = Mounted(&at);
    let mut daemon = Daemon::start(&at.join("d"), "");
    let context = dir.path().join("context");
    base::busybox(&context.join("root"));
    let text = "FROM scratch\nCOPY root /\nRUN echo 1 > /f && echo 2 > /g && mkdir /d && echo 3 > /d/h\n\
        RUN rm /f && rm -r /d && mkdir /d\nCMD ls -d /f /g /d/h\n";
    base::context(&context, &[("Dockerfile", text)]);
    let built = daemon.build(&context, &["-t", "x"]).ok();
    assert!(built.stderr.contains("overlays cannot be mounted"), "{}", built.stderr);
    let listed = daemon.run(&context, &["run", "--rm", "x"]);
    assert_eq!(listed.stdout, "/g\n", "{listed:?}");
    let verified = daemon.run(&context, &["debug", "verify"]).ok();
    assert!(!verified.stdout.contains("damaged"), "{}", verified.stdout);
    // What was made here is read again.
    daemon.stop();
    daemon.again();
    assert_eq!(daemon.build(&context, &["-t", "x"]).ok().ran(), Vec::<String>::new());
    daemon.stop();
    drop(mounted);
}
