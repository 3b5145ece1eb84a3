//! Docker's USER text, looked up in a file system's passwd and group files.
//!
//! Source: BuildKit's `executor/oci/user.go`, and moby's user package that it calls.

use cache::view::{MergedView, ViewError};

/// The files of a hostile image are not read further than this.
const LIMIT: u64 = 10 << 20;

/// Whom a command runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Resolved {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups; the primary one is always among them.
    pub groups: Vec<u32>,
    /// Home directory; `/` where the user has none.
    pub home: String,
}

/// A USER that cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub(super) enum UserError {
    /// No such user in /etc/passwd.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group in /etc/group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// An id outside of 0 to 2³¹ − 1.
    #[error("uids and gids must be in range 0-2147483647, not `{0}`")]
    Range(String),
    /// The files cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
}

struct Passwd {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Resolves `NAME[:GROUP]`, names or ids; empty is root.
///
/// # Errors
/// Names that the files do not hold; ids out of range.
pub(super) fn resolve(view: &MergedView, who: &str) -> Result<Resolved, UserError> {
    let read = |path: &[u8]| view.read_small(path, LIMIT);
    let (passwd, group) = (read(b"/etc/passwd")?, read(b"/etc/group")?);
    resolve_in(passwd.as_deref().unwrap_or_default(), group.as_deref().unwrap_or_default(), who)
}

fn resolve_in(passwd: &[u8], group: &[u8], who: &str) -> Result<Resolved, UserError> {
    let users = parse_passwd(passwd);
    // A third part is read by nobody.
    let mut parts = who.split(':');
    let user = parts.next().unwrap_or_default();
    let wanted_group = parts.next().filter(|group| !group.is_empty());
    let user = if user.is_empty() { "0" } else { user };
    let number = id(user)?;
    let entry = match users.iter().find(|e| e.name == user || Some(e.uid) == number) {
        Some(e) => Passwd { name: e.name.clone(), uid: e.uid, gid: e.gid, home: e.home.clone() },
        None => {
            let uid = number.ok_or_else(|| UserError::NoUser(user.to_owned()))?;
            Passwd { name: String::new(), uid, gid: 0, home: String::new() }
        }
    };
    let home = if entry.home.is_empty() { "/".to_owned() } else { entry.home };
    let groups = parse_group(group);
    if let Some(wanted) = wanted_group {
        let number = id(wanted)?;
        let found = groups.iter().find(|g| g.name == wanted || Some(g.gid) == number).map(|g| g.gid);
        let gid = found.or(number).ok_or_else(|| UserError::NoGroup(wanted.to_owned()))?;
        return Ok(Resolved { uid: entry.uid, gid, groups: vec![gid], home });
    }
    let member = |g: &&Group| !entry.name.is_empty() && g.members.contains(&entry.name);
    let mut supplementary: Vec<u32> = groups.iter().filter(member).map(|g| g.gid).collect();
    if !supplementary.contains(&entry.gid) {
        supplementary.insert(0, entry.gid);
    }
    Ok(Resolved { uid: entry.uid, gid: entry.gid, groups: supplementary, home })
}

/// A text of digits as an id; `None` for a name.
fn id(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse::<u32>().ok().filter(|n| *n <= i32::MAX as u32);
    id.map(Some).ok_or_else(|| UserError::Range(text.to_owned()))
}

fn lines(data: &[u8]) -> impl Iterator<Item = String> {
    data.split(|b| *b == b'\n')
        .map(|l| String::from_utf8_lossy(l).trim().to_owned())
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
}

fn parse_passwd(data: &[u8]) -> Vec<Passwd> {
    let one = |line: String| {
        let f: Vec<&str> = line.split(':').collect();
        let home = f.get(5).copied().unwrap_or_default().to_owned();
        Some(Passwd { name: f[0].to_owned(), uid: id(f.get(2)?).ok()??, gid: id(f.get(3)?).ok()??, home })
    };
    lines(data).filter_map(one).collect()
}

fn parse_group(data: &[u8]) -> Vec<Group> {
    let one = |line: String| {
        let f: Vec<&str> = line.split(':').collect();
        let members =
            f.get(3).map(|m| m.split(',').map(|s| s.trim().to_owned()).collect()).unwrap_or_default();
        Some(Group { name: f[0].to_owned(), gid: id(f.get(2)?).ok()??, members })
    };
    lines(data).filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n# no\nbad\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:user\nuser:x:1000:\nextra:x:7:a,user\n";

    fn of(who: &str) -> String {
        match resolve_in(PASSWD, GROUP, who) {
            Ok(r) => format!("{}:{} {:?} {}", r.uid, r.gid, r.groups, r.home),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn forms() {
        assert_eq!(of(""), "0:0 [0] /root");
        assert_eq!(of("user"), "1000:1000 [1000, 50, 7] /home/user");
        assert_eq!(of("1000"), "1000:1000 [1000, 50, 7] /home/user");
        assert_eq!(of("user:staff"), "1000:50 [50] /home/user");
        assert_eq!(of("5150"), "5150:0 [0] /");
        assert_eq!(of("5150:6"), "5150:6 [6] /");
        assert_eq!(of("5150:6:7"), "5150:6 [6] /");
        assert_eq!(of("nobody"), "unable to find user nobody: no matching entries in passwd file");
        assert_eq!(of("user:nope"), "unable to find group nope: no matching entries in group file");
        // Ids out of range in the image's files are nobody's.
        let passwd = b"app:x:4294967295:1000::/:/\napp2:x:1000:4294967295::/:/\n";
        for name in ["app", "app2"] {
            assert!(resolve_in(passwd, GROUP, name).is_err(), "{name}");
        }
        assert!(resolve_in(PASSWD, b"big:x:4294967295:\n", "1:big").is_err());
        assert_eq!(of("4294967296"), "uids and gids must be in range 0-2147483647, not `4294967296`");
    }
}
