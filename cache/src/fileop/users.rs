//! Names in `--chown`: what `/etc/passwd` and `/etc/group` of an image say.

use std::io::{self, BufRead, BufReader, Read};

/// How large a passwd or group file may be, in bytes. A larger one is an error, so that no image can make the daemon
/// read without end.
pub(super) const MAX_USER_FILE: u64 = 10 << 20;

/// The uid and primary gid of the first user called `name`; lines that are malformed are passed over.
pub(super) fn find_user(file: impl Read, name: &str) -> io::Result<Option<(u32, u32)>> {
    find(file, name, |mut fields| {
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, fields.next()?.parse().ok()?))
    })
}

/// The gid of the first group called `name`.
pub(super) fn find_group(file: impl Read, name: &str) -> io::Result<Option<u32>> {
    find(file, name, |mut fields| fields.nth(1)?.parse().ok())
}

fn find<T>(
    file: impl Read,
    name: &str,
    read: impl Fn(std::str::Split<'_, char>) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut lines = BufReader::new(file.take(MAX_USER_FILE + 1));
    let (mut line, mut seen) = (Vec::new(), 0);
    loop {
        line.clear();
        let len = lines.read_until(b'\n', &mut line)? as u64;
        if len == 0 {
            return Ok(None);
        }
        seen += len;
        if seen > MAX_USER_FILE {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "user file exceeds 10 MiB"));
        }
        let Ok(text) = std::str::from_utf8(&line) else { continue };
        let mut fields = text.trim().split(':');
        if fields.next() == Some(name)
            && let Some(found) = read(fields)
        {
            return Ok(Some(found));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_users_and_groups() {
        let passwd =
            b"root:x:0:0:root:/root:/bin/sh\n# c\nbroken:x\nuser:x:1000:1001::/:\nbig:x:4294967296:1::/:\n";
        assert_eq!(find_user(&passwd[..], "user").unwrap(), Some((1000, 1001)));
        assert_eq!(find_user(&passwd[..], "broken").unwrap(), None);
        assert_eq!(find_user(&passwd[..], "big").unwrap(), None, "ids end at 2^32");
        assert_eq!(find_group(&b"staff:x:50:\n"[..], "staff").unwrap(), Some(50));
        assert_eq!(find_group(&b"staff:x:50:"[..], "none").unwrap(), None);
    }

    #[test]
    fn a_file_without_end_is_an_error() {
        assert!(find_user(io::repeat(b'a'), "user").is_err());
    }
}
