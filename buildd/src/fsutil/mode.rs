//! Go's os.FileMode, which fsutil puts on the wire, and st_mode.

/// Pairs of Go's bit and the bits of st_mode below S_IFMT that mean the same.
const FLAGS: [(u32, u32); 3] = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];

const DIR: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const CHAR: u32 = 1 << 21;
const IRREGULAR: u32 = 1 << 19;

/// What Go calls ModeType; without any of these bits an entry is a file with data.
const TYPE: u32 = DIR | SYMLINK | DEVICE | FIFO | SOCKET | CHAR | IRREGULAR;

/// Turns st_mode into Go's FileMode, a socket into a plain file, as fsutil does.
pub fn file_mode(st_mode: u32) -> u32 {
    let kind = match st_mode & 0o170000 {
        0o040000 => DIR,
        0o120000 => SYMLINK,
        0o060000 => DEVICE,
        0o020000 => DEVICE | CHAR,
        0o010000 => FIFO,
        _ => 0,
    };
    FLAGS
        .iter()
        .fold(kind | st_mode & 0o777, |mode, &(go, st)| if st_mode & st != 0 { mode | go } else { mode })
}

/// Turns Go's FileMode into st_mode.
pub fn st_mode(file_mode: u32) -> u32 {
    let kind = match file_mode & TYPE {
        DIR => 0o040000,
        SYMLINK => 0o120000,
        DEVICE => 0o060000,
        m if m == DEVICE | CHAR => 0o020000,
        FIFO => 0o010000,
        _ => 0o100000,
    };
    FLAGS
        .iter()
        .fold(kind | file_mode & 0o777, |mode, &(go, st)| if file_mode & go != 0 { mode | st } else { mode })
}

pub(super) const fn is_dir(file_mode: u32) -> bool {
    file_mode & DIR != 0
}

pub(super) const fn is_symlink(file_mode: u32) -> bool {
    file_mode & SYMLINK != 0
}

/// Whether the receiver may ask for the entry's data. Both ends have to agree.
pub(super) const fn has_data(file_mode: u32) -> bool {
    file_mode & TYPE == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for mode in [0o100644, 0o104755, 0o042775, 0o041777, 0o120777, 0o010600, 0o060660, 0o020666] {
            assert_eq!(st_mode(file_mode(mode)), mode, "{mode:o}");
        }
        assert_eq!(file_mode(0o040755), 1 << 31 | 0o755);
        assert_eq!(file_mode(0o140755), 0o755);
    }
}
