//! Docker's `USER` against the image's own passwd and group files.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use crate::error::RunnerError;
use crate::resolve::open_in_root;
use crate::spec::User;

/// The largest passwd or group file that is read, bytes: an image must not fill the daemon's memory.
const MAX_FILE_BYTES: u64 = 10 << 20;
/// The largest id: 2³²−1 means "leave unchanged" to the kernel.
const MAX_ID: u64 = u32::MAX as u64 - 1;

/// Resolves `name`, `uid`, `name:group`, `uid:gid` or nothing at all (root) for the tree at `root`.
///
/// A user alone brings the primary group that the image lists and its supplementary groups; an id that is not listed
/// gets group 0. With a group given, exactly that one. The files are opened beneath the root, and only if they are
/// regular files.
pub fn resolve(root: BorrowedFd<'_>, user: &str) -> Result<User, RunnerError> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    // Both as numbers: the image has no say.
    if let (Some(uid), Some(gid)) = (number(name)?, group.map_or(Ok(None), number)?) {
        return Ok(User { uid, gid, groups: Vec::new() });
    }
    let (passwd, groups) = (read(root, "/etc/passwd")?, read(root, "/etc/group")?);
    resolve_in(name, group, &passwd, &groups)
}

fn resolve_in(name: &str, group: Option<&str>, passwd: &str, groups: &str) -> Result<User, RunnerError> {
    let account = passwd.lines().filter_map(Account::parse).find(|account| account.is(name));
    let mut user = match (&account, number(name)?) {
        (Some(account), _) => User { uid: account.uid, gid: account.gid, groups: Vec::new() },
        (None, Some(uid)) => User { uid, gid: 0, groups: Vec::new() },
        // An image without passwd file still has a root.
        (None, None) if name == "root" => User::default(),
        (None, None) => return Err(unknown("user", name, "passwd")),
    };
    let mut listed = groups.lines().filter_map(Group::parse);
    match group {
        Some(group) => {
            user.gid = match (listed.find(|entry| entry.is(group)), number(group)?) {
                (Some(entry), _) => entry.gid,
                (None, Some(gid)) => gid,
                (None, None) => return Err(unknown("group", group, "group")),
            };
        }
        None => {
            let member = account.as_ref().map_or(name, |account| account.name);
            user.groups =
                listed.filter(|entry| entry.members.contains(&member)).map(|entry| entry.gid).collect();
        }
    }
    Ok(user)
}

/// The id that a string spells; none if it is a name.
fn number(text: &str) -> Result<Option<u32>, RunnerError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u64>() {
        Ok(id) if id <= MAX_ID => Ok(Some(id as u32)),
        _ => Err(RunnerError::IdOutOfRange { id: text.to_owned() }),
    }
}

fn unknown(kind: &str, name: &str, file: &str) -> RunnerError {
    RunnerError::UnknownUser { kind: kind.to_owned(), name: name.to_owned(), file: file.to_owned() }
}

/// A line of passwd.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let id = |index: usize| number(fields.get(index)?).ok()?;
        Some(Self { name: fields.first()?, uid: id(2)?, gid: id(3)? })
    }

    fn is(&self, wanted: &str) -> bool {
        self.name == wanted || number(wanted) == Ok(Some(self.uid))
    }
}

/// A line of group.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: Vec<&'a str>,
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        let gid = number(fields.get(2)?).ok()??;
        let members = fields.get(3).map_or(Vec::new(), |list| list.trim().split(',').collect());
        Some(Self { name: fields.first()?, gid, members })
    }

    fn is(&self, wanted: &str) -> bool {
        self.name == wanted || number(wanted) == Ok(Some(self.gid))
    }
}

/// A file of the image as text; empty when it is not there.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, RunnerError> {
    let bad = |reason: String| RunnerError::ImageFile { path: path.into(), reason };
    // Not blocking: a FIFO must not hold the daemon.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open_in_root(root, Path::new(path), flags) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(bad(errno.to_string())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|errno| bad(errno.to_string()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(bad("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let limited = std::fs::File::from(file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    limited.map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(bad(format!("it exceeds {MAX_FILE_BYTES} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nwww:x:33:34::/:/bin/false\n";
    const GROUPS: &str = "root:x:0:\nweb:x:34:\nextra:x:2000:other,www\nmore:x:2001:www\n";

    fn check(user: &str, expected: Result<(u32, u32, &[u32]), &str>) {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("etc")).unwrap();
        fs_err::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
        fs_err::write(dir.path().join("etc/group"), GROUPS).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let found = resolve(root.as_fd(), user).map_err(|error| error.to_string());
        let expected = expected
            .map(|(uid, gid, groups)| User { uid, gid, groups: groups.to_vec() })
            .map_err(str::to_owned);
        assert_eq!(found, expected, "{user}");
    }

    #[test]
    fn all_spellings() {
        check("", Ok((0, 0, &[])));
        check("root", Ok((0, 0, &[])));
        check("www", Ok((33, 34, &[2000, 2001])));
        check("33", Ok((33, 34, &[2000, 2001])));
        check("www:extra", Ok((33, 2000, &[])));
        check("www:77", Ok((33, 77, &[])));
        check("www:", Ok((33, 34, &[2000, 2001])));
        check("5150", Ok((5150, 0, &[])));
        check("5150:61", Ok((5150, 61, &[])));
        check("33:web", Ok((33, 34, &[])));
        check("nobody", Err("unable to find user `nobody`: no matching entries in passwd file"));
        check("www:none", Err("unable to find group `none`: no matching entries in group file"));
        check("4294967295", Err("user or group id `4294967295` is out of range"));
        check("1:4294967296", Err("user or group id `4294967296` is out of range"));
        check("99999999999999999999", Err("user or group id `99999999999999999999` is out of range"));
    }

    /// T10.
    #[test]
    fn hostile_files() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs_err::create_dir(&etc).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let error = || resolve(root.as_fd(), "www").unwrap_err().to_string();
        let cwd = rustix::fs::CWD;
        rustix::fs::mknodat(cwd, etc.join("passwd"), FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        assert_eq!(error(), "cannot use `/etc/passwd` of the image: it is not a regular file");
        fs_err::remove_file(etc.join("passwd")).unwrap();
        let huge = std::fs::File::create(etc.join("passwd")).unwrap();
        huge.set_len(1 << 40).unwrap();
        assert_eq!(error(), "cannot use `/etc/passwd` of the image: it exceeds 10485760 bytes");
        fs_err::remove_file(etc.join("passwd")).unwrap();
        // Leads to the host's file if it were followed outside of the root.
        std::os::unix::fs::symlink("/../../../etc/hostname", etc.join("passwd")).unwrap();
        assert_eq!(error(), "unable to find user `www`: no matching entries in passwd file");
        assert_eq!(resolve(root.as_fd(), "root").unwrap(), User::default());
    }
}
