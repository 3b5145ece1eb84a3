//! Platforms whose programs this machine runs besides its own: lesser and greater variants of its architecture, and what the
//! kernel hands to emulators (binfmt_misc).

use cache::oci::Platform;

/// Where the kernel tells of emulators (its `admin-guide/binfmt-misc.rst`).
const EMULATORS: &str = "/proc/sys/fs/binfmt_misc";
/// There where the kernel runs programs of 32 bits on x86-64.
const COMPAT: &str = "/proc/sys/abi/vsyscall32";

/// In the order of BuildKit's `util/archutil`: machine of the ELF header, its class (1: 32 bits, 2: 64) and byte order
/// (1: little, 2: big), and the platforms that such programs are for.
const MACHINES: [(u16, u8, u8, &[&str]); 11] = [
    (62, 2, 1, &["linux/amd64"]),
    (183, 2, 1, &["linux/arm64"]),
    (243, 2, 1, &["linux/riscv64"]),
    (21, 2, 2, &["linux/ppc64"]),
    (21, 2, 1, &["linux/ppc64le"]),
    (22, 2, 2, &["linux/s390x"]),
    (3, 1, 1, &["linux/386"]),
    (8, 2, 1, &["linux/mips64le"]),
    (8, 2, 2, &["linux/mips64"]),
    (258, 2, 1, &["linux/loong64"]),
    (40, 1, 1, &["linux/arm/v7", "linux/arm/v6"]),
];

/// All of them but `own`. Reads a few small files of the kernel.
pub(super) fn platforms(own: &Platform) -> Vec<Platform> {
    let mut found = variants(own);
    let on = fs_err::read_to_string(format!("{EMULATORS}/status")).is_ok_and(|text| text.trim() == "enabled");
    let entries =
        on.then(|| fs_err::read_dir(EMULATORS).into_iter().flatten().flatten()).into_iter().flatten();
    let emulated: Vec<_> =
        entries.filter_map(|entry| machine(&fs_err::read_to_string(entry.path()).ok()?)).collect();
    let compat = own.architecture == "amd64" && std::path::Path::new(COMPAT).exists();
    for (number, class, order, names) in MACHINES {
        if emulated.contains(&(number, class, order)) || (compat && names == ["linux/386"]) {
            found.extend(names.iter().filter_map(|name| name.parse::<Platform>().ok()));
        }
    }
    found.retain(|platform| platform != own);
    found
}

/// The levels of x86-64 that the processor has (the psABI's "Micro-Architecture Levels").
fn variants(own: &Platform) -> Vec<Platform> {
    let named = |level: &str| Platform { variant: Some(level.to_owned()), ..own.clone() };
    ["v2", "v3", "v4"].into_iter().take(levels()).map(named).collect()
}

#[cfg(target_arch = "x86_64")]
fn levels() -> usize {
    macro_rules! has {
        ($($feature:tt),*) => { $(std::arch::is_x86_feature_detected!($feature))&&* };
    }
    let second = has!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3");
    let third = second && has!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let fourth = third && has!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    [second, third, fourth].into_iter().filter(|has| *has).count()
}

#[cfg(not(target_arch = "x86_64"))]
fn levels() -> usize {
    0
}

/// Machine, class and byte order of the programs that an entry of binfmt_misc is for; `None` when it is off, for others, or
/// for steps whose root holds the emulator only (without the flag F).
fn machine(entry: &str) -> Option<(u16, u8, u8)> {
    let mut lines = entry.lines();
    let fixed = |entry: &str| entry.lines().any(|line| line.starts_with("flags:") && line.contains('F'));
    if lines.next()? != "enabled" || !fixed(entry) {
        return None;
    }
    let magic = lines.find_map(|line| line.strip_prefix("magic "))?;
    let byte = |n: usize| u8::from_str_radix(magic.get(2 * n..2 * n + 2)?, 16).ok();
    if !magic.starts_with("7f454c46") {
        return None;
    }
    let (class, order, number) = (byte(4)?, byte(5)?, [byte(18)?, byte(19)?]);
    let number = if order == 2 { u16::from_be_bytes(number) } else { u16::from_le_bytes(number) };
    Some((number, class, order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_kernel() {
        let entry = |state: &str, magic: &str| {
            format!("{state}\ninterpreter /usr/bin/qemu\nflags: POCF\noffset 0\nmagic {magic}\nmask ff\n")
        };
        let arm64 = "7f454c460201010000000000000000000200b700";
        let s390x = "7f454c4602020100000000000000000000020016";
        assert_eq!(machine(&entry("enabled", arm64)), Some((183, 2, 1)));
        assert_eq!(machine(&entry("enabled", s390x)), Some((22, 2, 2)));
        let none = [
            entry("disabled", arm64),
            entry("enabled", arm64).replace("POCF", "POC"),
            entry("enabled", &arm64[..20]),
            entry("enabled", "cafebabe"),
            entry("enabled", "7f454c46\u{fc}\u{fc}\u{fc}"),
            "enabled\ninterpreter /usr/bin/jar\nextension .jar\n".to_owned(),
            "enabled".to_owned(),
            String::new(),
        ];
        for entry in none {
            assert_eq!(machine(&entry), None, "{entry}");
        }
    }

    #[test]
    fn every_platform_has_a_name() {
        for name in MACHINES.iter().flat_map(|(.., names)| *names) {
            assert!(name.parse::<Platform>().is_ok(), "{name}");
        }
    }
}
