//! How near two paths are.

use cache::tree::TreePath;
use frontend::suggest::distance;

/// How many are named.
const MOST: usize = 3;

/// How a path is near another, the nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Case,
    Typo(usize),
    ElsewhereSameName,
    ElsewhereTypo(usize),
}

/// The paths nearest to `wanted`, which is not among them.
pub(super) fn nearest<'a>(wanted: &TreePath, paths: &'a [TreePath]) -> Vec<&'a TreePath> {
    let text = String::from_utf8_lossy(wanted.as_bytes()).into_owned();
    let lower = text.to_lowercase();
    let name = file_name(&text);
    let mut near: Vec<(Kind, &TreePath)> = Vec::new();
    for path in paths.iter().filter(|path| *path != wanted) {
        let other = String::from_utf8_lossy(path.as_bytes());
        let other_name = file_name(&other);
        let kind = if other.to_lowercase() == lower {
            Some(Kind::Case)
        } else if let Some(distance) = distance(&text, &other, bound(&text)) {
            Some(Kind::Typo(distance))
        } else if other_name == name {
            Some(Kind::ElsewhereSameName)
        } else {
            distance(name, other_name, bound(name)).map(Kind::ElsewhereTypo)
        };
        near.extend(kind.map(|kind| (kind, path)));
    }
    near.sort_by_key(|(kind, path)| (*kind, path.as_bytes().len(), path.as_bytes()));
    near.into_iter().map(|(_, path)| path).take(MOST).collect()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// How many letters may differ: at most two, and fewer in short names, which are all alike.
fn bound(text: &str) -> usize {
    (text.chars().count() / 3).min(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(wanted: &str, paths: &[&str]) -> Vec<String> {
        let path = |text: &&str| TreePath::clean(text.as_bytes()).expect("a path");
        let paths: Vec<TreePath> = paths.iter().map(path).collect();
        nearest(&path(&wanted), &paths)
            .into_iter()
            .map(|path| String::from_utf8_lossy(path.as_bytes()).into_owned())
            .collect()
    }

    #[test]
    fn the_nearest_come_first() {
        let paths = ["src", "src/main.c", "lib/main.c", "lib/mian.c", "README.md", "a", "package.json"];
        assert_eq!(near("pakage.json", &paths), ["package.json"]);
        assert_eq!(near("readme.md", &paths), ["README.md"]);
        assert_eq!(near("src/mian.c", &paths), ["src/main.c", "lib/mian.c", "lib/main.c"]);
        assert_eq!(near("main.c", &paths), ["lib/main.c", "src/main.c", "lib/mian.c"]);
        assert_eq!(near("b", &paths), [""; 0], "one letter is like every other");
        assert_eq!(near("nothing/like/it", &paths), [""; 0]);
        assert_eq!(near("sec", &paths), ["src"]);
        assert_eq!(near("x/a", &["a", "b/a", "c/a", "d/a", "e/a"]), ["b/a", "c/a", "d/a"]);
    }
}
