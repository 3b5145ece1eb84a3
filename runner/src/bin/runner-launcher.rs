//! A launcher of its own, for programs that cannot call [`runner::launcher_main`] first thing (test binaries).

fn main() {
    runner::launcher_main();
    eprintln!("this program is started by `runner::Launcher`");
    std::process::exit(1);
}
