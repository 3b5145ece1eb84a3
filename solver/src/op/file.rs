//! File operations: LLB's FileOp, one vertex with a list of actions.

/// Actions in order; each may build on a vertex input or on an earlier action.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileOp {
    /// In order of execution.
    pub actions: Vec<FileAction>,
}

/// Where an action takes a file system from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionInput {
    /// An empty file system (LLB's -1).
    Scratch,
    /// An input of the vertex.
    Vertex(usize),
    /// The result of an earlier action of the same op, by its index.
    Action(usize),
}

/// One action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAction {
    /// What is changed.
    pub input: ActionInput,
    /// What is copied from; `Scratch` for the other kinds.
    pub secondary: ActionInput,
    /// The vertex output that the result becomes, if any.
    pub output: Option<usize>,
    /// What is done.
    pub kind: FileActionKind,
}

/// What an action does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileActionKind {
    /// Copies from the secondary input.
    Copy(Box<CopyAction>),
    /// Writes one file.
    MkFile(MkFileAction),
    /// Makes a directory.
    MkDir(MkDirAction),
    /// Removes a path.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// A copy; `timestamp` fields are nanoseconds since 1970, `None` keeps the source's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyAction {
    /// Path or pattern in the secondary input.
    pub src: String,
    /// Path in the input; a trailing slash means a directory.
    pub dest: String,
    /// Owner of what is created; `None` keeps the source's.
    pub owner: Option<ChownOpt>,
    /// Octal permission bits; `None` keeps the source's (LLB's -1).
    pub mode: Option<u32>,
    /// Symbolic mode such as `u+x`; empty: none.
    pub mode_str: String,
    /// A source that is a symlink is followed.
    pub follow_symlink: bool,
    /// A source directory stands for its contents.
    pub dir_copy_contents: bool,
    /// A local tar archive is unpacked (ADD).
    pub attempt_unpack: bool,
    /// Missing parents of the destination are made.
    pub create_dest_path: bool,
    /// `src` may hold `*` and `?`.
    pub allow_wildcard: bool,
    /// A pattern without a match is no error.
    pub allow_empty_wildcard: bool,
    /// Modification time of what is created.
    pub timestamp: Option<i64>,
    /// Only these, relative to the source.
    pub include_patterns: Vec<String>,
    /// Not these, relative to the source.
    pub exclude_patterns: Vec<String>,
    /// An existing destination of another type is replaced.
    pub always_replace_existing_dest_paths: bool,
    /// Paths that have to exist (`--parents`).
    pub required_paths: Vec<String>,
}

/// A file with given bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MkFileAction {
    /// Path in the input.
    pub path: String,
    /// Permission bits; `None` is LLB's -1.
    pub mode: Option<u32>,
    /// Content.
    pub data: Vec<u8>,
    /// Owner; `None` is root.
    pub owner: Option<ChownOpt>,
    /// Nanoseconds since 1970; `None` is now.
    pub timestamp: Option<i64>,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MkDirAction {
    /// Path in the input.
    pub path: String,
    /// Permission bits; `None` is LLB's -1.
    pub mode: Option<u32>,
    /// Parents too; an existing directory is no error.
    pub make_parents: bool,
    /// Owner; `None` is root.
    pub owner: Option<ChownOpt>,
    /// Nanoseconds since 1970; `None` is now.
    pub timestamp: Option<i64>,
}

/// A removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RmAction {
    /// Path or pattern.
    pub path: String,
    /// Absence is no error.
    pub allow_not_found: bool,
    /// `path` may hold `*` and `?`.
    pub allow_wildcard: bool,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymlinkAction {
    /// What the link says.
    pub oldpath: String,
    /// Where the link is.
    pub newpath: String,
    /// Owner; `None` is root.
    pub owner: Option<ChownOpt>,
    /// Nanoseconds since 1970; `None` is now.
    pub timestamp: Option<i64>,
}

/// An owner; an absent half is 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChownOpt {
    /// User.
    pub user: Option<UserOpt>,
    /// Group.
    pub group: Option<UserOpt>,
}

/// A user or group by name or number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserOpt {
    /// Looked up in /etc/passwd or /etc/group of `input`.
    Name {
        /// The name.
        name: String,
        /// The file system with the passwd and group files.
        input: ActionInput,
    },
    /// A number.
    Id(u32),
}
