//! Every seed, and with them every input that once failed, through its target.

use fuzz::TARGETS;

#[test]
fn seeds_pass() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for (name, target) in TARGETS {
        target(b"");
        let mut count = 0;
        for seed in fs_err::read_dir(seeds.join(name)).expect("each target has seeds") {
            let path = seed.expect("the directory can be read").path();
            eprintln!("{}", path.display());
            target(&fs_err::read(path).expect("a seed can be read"));
            count += 1;
        }
        assert!(count > 0, "`{name}` has no seeds");
    }
    let known = |name: &str| TARGETS.iter().any(|(target, _)| *target == name);
    for dir in fs_err::read_dir(seeds).expect("the seeds are there") {
        let name = dir.expect("the directory can be read").file_name().into_string().expect("a plain name");
        assert!(known(&name), "seeds of no target: `{name}`");
    }
}
