//! What can be wrong with LLB.

use solver::Digest;

/// A definition that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LlbError {
    /// No ops at all.
    #[error("invalid empty definition")]
    Empty,
    /// An op that is no protobuf message of that kind.
    #[error("invalid definition: op {index} cannot be decoded: {reason}")]
    Malformed {
        /// Its place in the definition.
        index: usize,
        /// What the decoder says.
        reason: String,
    },
    /// The last op, which only points at the result, points at nothing.
    #[error("invalid definition: the last op has no inputs")]
    NoResult,
    /// An input that the definition does not hold.
    #[error("invalid definition: missing input digest `{0}`")]
    MissingInput(String),
    /// Ops that need each other, which only a broken hash could make.
    #[error("invalid definition: op `{0}` needs itself")]
    Cycle(Digest),
    /// Something within an op.
    #[error("invalid op `{digest}`: {reason}")]
    Op {
        /// The op.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        reason: Invalid,
    },
    /// Build ops within build ops.
    #[error("invalid definition: nested more than {0} deep")]
    TooDeep(usize),
    /// A place in a source file that the definition does not hold.
    #[error("invalid definition: location of `{digest}` points at source {index}, which does not exist")]
    Location {
        /// The op.
        digest: Digest,
        /// The index.
        index: i32,
    },
}

/// What is wrong within an op.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A part that every op of the kind has.
    #[error("no {0}")]
    Missing(&'static str),
    /// An index that is out of range.
    #[error("{what} {index} does not exist")]
    Index {
        /// What the index counts.
        what: &'static str,
        /// The index.
        index: i64,
    },
    /// An output that two parts of the op claim.
    #[error("output {0} is made twice")]
    DuplicateOutput(i64),
    /// More of something than an op may have.
    #[error("{count} {what}, more than the {most} that an operation may have")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
    /// A number that stands for nothing.
    #[error("invalid {what} {value}")]
    Enum {
        /// Of which kind.
        what: &'static str,
        /// The number.
        value: i32,
    },
    /// A text that cannot be passed to the kernel.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
    /// A path that has to be absolute.
    #[error("{what} `{path}` is not absolute")]
    Relative {
        /// Which path.
        what: &'static str,
        /// The path.
        path: String,
    },
    /// A number out of range.
    #[error("{what} {value} is out of range")]
    Range {
        /// Which number.
        what: &'static str,
        /// The number.
        value: i64,
    },
    /// A secret or an agent as root file system.
    #[error("the root mount cannot be a secret or an ssh agent")]
    Root,
}
