//! Contexts that change while they are copied, and other interruptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::{FileInput, FileOpError};
use super::world::*;

/// What is done to a walked context before it is copied.
#[derive(Debug, Clone, Copy)]
enum Edit {
    SameSize,
    Grown,
    Removed,
    Link,
    Directory,
    ParentLink,
}

#[test]
fn a_change_is_noticed_however_it_looks() {
    let Some(world) = world() else { return };
    for edit in [Edit::SameSize, Edit::Grown, Edit::Removed, Edit::Link, Edit::Directory, Edit::ParentLink] {
        let secret = world.files(&[("file", "1234", 0o644)]);
        let dir = world.files(&[("sub/file", "1234", 0o644)]);
        let input = FileInput::Context(world.walk(&dir));
        let file = dir.join("sub/file");
        match edit {
            Edit::SameSize => std::fs::write(&file, "5678").unwrap(),
            Edit::Grown => std::fs::write(&file, "12345").unwrap(),
            Edit::Removed => std::fs::remove_file(&file).unwrap(),
            Edit::Link => {
                std::fs::remove_file(&file).unwrap();
                std::os::unix::fs::symlink(secret.join("file"), &file).unwrap();
            }
            Edit::Directory => {
                std::fs::remove_file(&file).unwrap();
                std::fs::create_dir(&file).unwrap();
            }
            Edit::ParentLink => {
                std::fs::remove_dir_all(dir.join("sub")).unwrap();
                std::os::unix::fs::symlink(&secret, dir.join("sub")).unwrap();
            }
        }
        let inputs = [FileInput::Chain(world.scratch().base), input];
        let got = world.execute(&op(copies(&[("sub", "/x")])), &inputs).unwrap_err();
        assert!(got.is_context_changed(), "{edit:?}: {got}");
    }
}

#[test]
fn rewritten_with_the_same_bytes_is_no_change() {
    let Some(world) = world() else { return };
    let dir = world.files(&[("file", "1234", 0o644)]);
    let input = FileInput::Context(world.walk(&dir));
    std::fs::write(dir.join("file"), "5678").unwrap();
    std::fs::write(dir.join("file"), "1234").unwrap();
    world.run(&world.scratch(), &input, copies(&[("file", "/x")])).unwrap();
}

#[test]
fn a_cancelled_operation_ends() {
    let Some(world) = world() else { return };
    let input = world.context(&[("d/file", "1234", 0o644)]);
    world.cancel();
    let inputs = [FileInput::Chain(world.scratch().base), input];
    let got = world.execute(&op(copies(&[("d", "/x")])), &inputs).unwrap_err();
    let FileOpError::Action { source, .. } = got else { panic!("{got}") };
    assert!(matches!(source, super::super::ActionError::Cancelled));
}

#[test]
fn files_are_opened_only_in_threads_with_the_clients_identity() {
    let Some(mut world) = world() else { return };
    // An ordinary user: what only root may read fails, in the walk and in the copy.
    let called = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&called);
    world.thread_init = Some(Arc::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        let user = rustix::fs::Uid::from_raw(65_534);
        let _ = rustix::thread::set_thread_res_uid(user, user, user);
    }));
    let dir = world.files(&[("open/a", "a", 0o644), ("open/b", "b", 0o644)]);
    for path in [world.dir.path().to_owned(), dir.clone()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let input = FileInput::Context(world.walk(&dir));
    let before = called.load(Ordering::Relaxed);
    assert!(before > 0);
    let got = world.run(&world.scratch(), &input, copies(&[("open", "/x")])).unwrap();
    assert_eq!(got.tree.lines().count(), 3);
    assert!(called.load(Ordering::Relaxed) > before);

    std::fs::set_permissions(dir.join("open/a"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let inputs = [FileInput::Chain(world.scratch().base), input];
    let got = world.execute(&op(copies(&[("open", "/x")])), &inputs).unwrap_err();
    let FileOpError::Action { source, .. } = got else { panic!("{got}") };
    assert!(matches!(source, super::super::ActionError::Source { .. }), "{source}");
}
