//! Why a Dockerfile cannot be lowered (yet).

use solver::pattern::PatternError;
use thiserror::Error;

use crate::ast::Document;
use crate::diagnostic::{Diagnostic, Phase};
use crate::lint::{CheckOptionsError, Finding, Linter};
use crate::lower::git_ref::GitRefError;
use crate::lower::path::PathError;
use crate::lower::ports::PortError;
use crate::lower::resolved::Need;
use crate::mount::MountError;
use crate::platform::PlatformError;
use crate::quote::quote;
use crate::reference::ReferenceError;
use crate::span::{Lines, Span};
use crate::suggest::did_you_mean;
use crate::words::WordError;

/// Why [`crate::lower::lower`] gave no graph.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum LowerError {
    /// Something has to be looked up first; then call again.
    #[error("{} lookups are missing", .0.len())]
    Needs(Vec<Need>),
    /// The Dockerfile, or an option, cannot be used.
    #[error("{0}")]
    Failed(Box<Failure>),
}

/// A fault and its place.
#[derive(Debug, Clone, PartialEq, Error)]
#[error("{fault}")]
pub struct Failure {
    /// What is wrong.
    pub fault: Fault,
    /// The lines that BuildKit names; `None` where it names none.
    pub lines: Option<Lines>,
    /// The word meant, as written or expanded; empty when the lines say it all.
    pub word: String,
    /// Where that word is.
    pub spans: Vec<Span>,
    /// What lint had found until then.
    pub findings: Vec<Finding>,
    /// What else is wrong, in the order in which it was found; BuildKit stops at the first.
    pub others: Vec<Self>,
}

impl Failure {
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            fault,
            lines: None,
            word: String::new(),
            spans: Vec::new(),
            findings: Vec::new(),
            others: Vec::new(),
        }
    }

    /// Finds the words in the instructions that the lines name.
    pub(crate) fn locate(&mut self, document: &Document) {
        self.others.iter_mut().for_each(|other| other.locate(document));
        let Some(lines) = self.lines.filter(|_| !self.word.is_empty()) else { return };
        let instruction = document.instructions.iter().find(|instruction| instruction.lines == lines);
        let found = instruction.filter(|instruction| instruction.original.contains(&self.word));
        self.spans.extend(found.map(|instruction| instruction.find(&self.word)));
    }

    /// All errors, the one that BuildKit reports first.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.all().map(Self::diagnostic).collect()
    }

    /// This error and the others, each by itself.
    fn split(mut self) -> Vec<Self> {
        let others = std::mem::take(&mut self.others);
        std::iter::once(self).chain(others).collect()
    }

    /// This error and the others.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.others)
    }

    /// The first error as the frontend's diagnostics are.
    pub fn diagnostic(&self) -> Diagnostic {
        let diagnostic = match &self.fault {
            Fault::Trigger(diagnostic) => (**diagnostic).clone(),
            fault => Diagnostic::error(Phase::Convert, fault.to_string()),
        };
        let diagnostic = self.spans.iter().fold(diagnostic, |diagnostic, span| diagnostic.mark(*span));
        let diagnostic = self.fault.hint().into_iter().fold(diagnostic, Diagnostic::hint);
        match self.lines {
            Some(lines) => diagnostic.at(lines),
            None => diagnostic,
        }
    }
}

impl LowerError {
    /// Names the lines, unless they are named already.
    pub(crate) fn at(mut self, lines: Lines) -> Self {
        if let Self::Failed(failure) = &mut self {
            failure.lines.get_or_insert(lines);
        }
        self
    }

    /// Says which word is meant, unless that was said.
    pub(crate) fn named(mut self, word: &str) -> Self {
        if let Self::Failed(failure) = &mut self
            && failure.word.is_empty()
        {
            word.clone_into(&mut failure.word);
        }
        self
    }

    /// An error about one word of an instruction.
    pub(crate) fn word(fault: impl Into<Fault>, word: &str) -> Self {
        Self::Failed(Box::new(Failure { word: word.to_owned(), ..Failure::new(fault.into()) }))
    }
}

impl<E: Into<Fault>> From<E> for LowerError {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(Failure::new(error.into())))
    }
}

/// More errors than this are not looked for: a file that is something else has one in each line.
const MAX_FAILURES: usize = 100;

/// The errors of one pass over the file, which goes on after the first.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    list: Vec<Failure>,
    /// How many findings there were at the first.
    findings: usize,
}

impl Failures {
    /// Notes an error.
    ///
    /// # Errors
    /// When the pass cannot go on: too many errors, or something has to be looked up first.
    pub(crate) fn note(&mut self, result: Result<()>, linter: &mut Linter) -> Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(LowerError::Failed(failure)) if self.list.len() + 1 < MAX_FAILURES => {
                if self.list.is_empty() {
                    self.findings = linter.findings().len();
                }
                self.list.push(*failure);
                Ok(())
            }
            Err(error) => Err(self.with(error, linter)),
        }
    }

    /// A result that the pass cannot do without.
    ///
    /// # Errors
    /// Its own, with those noted.
    pub(crate) fn pass<T>(&mut self, result: Result<T>, linter: &mut Linter) -> Result<T> {
        result.map_err(|error| {
            if self.list.is_empty() {
                self.findings = linter.findings().len();
            }
            self.with(error, linter)
        })
    }

    /// An error with those noted; the findings are those of the first.
    fn with(&mut self, error: LowerError, linter: &mut Linter) -> LowerError {
        match std::mem::take(&mut self.list) {
            list if list.is_empty() => error,
            mut list => {
                linter.truncate(self.findings);
                // What is missing need not be looked up for a file that is wrong anyway.
                if let LowerError::Failed(failure) = error {
                    list.extend(failure.split());
                }
                joined(list)
            }
        }
    }

    /// Ends the pass.
    ///
    /// # Errors
    /// The first error with the others; the findings are then those of BuildKit, which stops there.
    pub(crate) fn end(self, linter: &mut Linter) -> Result<()> {
        if !self.list.is_empty() {
            linter.truncate(self.findings);
        }
        self.end_with_all()
    }

    /// Ends a pass whose errors BuildKit finds side by side: all findings stay.
    ///
    /// # Errors
    /// The first error with the others.
    pub(crate) fn end_with_all(self) -> Result<()> {
        if self.list.is_empty() { Ok(()) } else { Err(joined(self.list)) }
    }
}

/// The first of some failures, with the others.
fn joined(mut list: Vec<Failure>) -> LowerError {
    let others = list.split_off(1);
    let mut first = list.swap_remove(0);
    first.others = others;
    LowerError::Failed(Box::new(first))
}

/// The result of a part of lowering.
pub(crate) type Result<T> = std::result::Result<T, LowerError>;

/// Names the lines of an error.
pub(crate) trait At<T> {
    /// Names the lines, unless they are named already.
    fn at(self, lines: Lines) -> Result<T>;
}

impl<T, E: Into<LowerError>> At<T> for std::result::Result<T, E> {
    fn at(self, lines: Lines) -> Result<T> {
        self.map_err(|error| error.into().at(lines))
    }
}

/// What is wrong with a Dockerfile or the options it is built with. Messages are BuildKit's, which tools compare.
#[derive(Debug, Clone, PartialEq, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Fault {
    #[error("the Dockerfile cannot be empty")]
    Empty,
    #[error("dockerfile contains no stages to build")]
    NoStages,
    #[error(transparent)]
    Word(#[from] WordError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Git(#[from] GitRefError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("{0}")]
    Trigger(Box<Diagnostic>),
    #[error("failed to parse check options: {0}")]
    Check(#[from] CheckOptionsError),
    #[error("{0}")]
    Ignore(#[from] PatternError),
    #[error("{0}")]
    Lint(String),
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    #[error("failed to process arguments for platform : {0}")]
    PlatformWord(WordError),
    #[error("empty platform value from expression {expression}{}", did_you_mean(.suggestion.as_deref()))]
    EmptyPlatform { expression: String, suggestion: Option<String> },
    #[error("failed to parse platform {expression}: {source}{}", did_you_mean(.suggestion.as_deref()))]
    Platform { expression: String, source: PlatformError, suggestion: Option<String> },
    #[error("failed to parse stage name {}: {source}", quote(.name))]
    StageName { name: String, source: ReferenceError },
    #[error("failed to parse ref {}: {source}", quote(.name))]
    ResolvedName { name: String, source: ReferenceError },
    #[error("ref mutated by policy to non-image: docker-image://{name} -> {other}")]
    NoImage { name: String, other: String },
    #[error(
        "context recursion limit exceeded; this may indicate a cycle in the provided source policies: {0}"
    )]
    ContextCycle(String),
    #[error("target stage {} could not be found{}", quote(.name), did_you_mean(.suggestion.as_deref()))]
    UnknownTarget { name: String, suggestion: Option<String> },
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    VariableInFrom,
    #[error("invalid stage index {0}")]
    StageIndex(i64),
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    #[error("onbuild trigger should be a single expression")]
    TriggerNotSingle,
    #[error("failed to parse image config: {0}")]
    ImageConfig(String),
    #[error("cannot copy from stage {}, it needs to be defined before current stage {}", quote(.from), quote(.stage))]
    CopyFromLater { from: String, stage: String },
    #[error("cannot mount from stage {} to {}, stage needs to be defined before current command", quote(.from), quote(.target))]
    MountFromLater { from: String, target: String },
    #[error("invalid mount target {}", quote(.0))]
    MountTarget(String),
    #[error("one of source, target required")]
    SecretUnnamed,
    #[error("ssh does not support source")]
    SshSource,
    #[error("device feature is only supported in Dockerfile frontend 1.14.0-labs or later")]
    Devices,
    #[error("parsing produced an invalid run command: {0:?}")]
    RunCommand(Vec<String>),
    #[error("arguments are required")]
    NoArguments,
    #[error("invalid chmod parameter: '{0}'. it should be octal string and between 0 and 07777")]
    Chmod(String),
    #[error("invalid mode string {}", quote(.0))]
    SymbolicChmod(String),
    #[error("checksum can't be specified for multiple sources")]
    ChecksumOfMany,
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumOfFile,
    #[error("checksum mismatch {} != {}", quote(.given), quote(.query))]
    ChecksumMismatch { given: String, query: String },
    #[error("{0}")]
    ChecksumFormat(&'static str),
    #[error("source can't be a git ref for COPY")]
    CopyOfGit,
    #[error("source can't be a URL for COPY")]
    CopyOfUrl,
    #[error("inconsistent keep-git-dir configuration")]
    KeepGitDir,
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    #[error("invalid signal: {0}")]
    Signal(String),
    #[error("invalid context name {name}: {source}")]
    ContextName { name: String, source: ReferenceError },
    #[error("invalid context specifier {spec} for {name}")]
    ContextSpec { spec: String, name: String },
    #[error("unsupported context source {kind} for {name}")]
    ContextKind { kind: String, name: String },
    #[error("invalid git context {0}")]
    GitContext(String),
    #[error("{0}")]
    ContextImage(ReferenceError),
    #[error("oci-layout reference {} has no digest", quote(.0))]
    LayoutDigest(String),
    #[error("invalid input {input} for {name}")]
    ContextInput { input: String, name: String },
    #[error("failed to parse input metadata {0}")]
    InputMetadata(String),
    #[error("invalid SOURCE_DATE_EPOCH: {0}")]
    Epoch(String),
    #[error("{0}")]
    EpochStage(&'static str),
    #[error("SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported {0} instruction")]
    EpochInstruction(String),
}

impl Fault {
    /// What to do about it, where the message does not say.
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::BlankBase(base) => {
                format!(
                    "give the ARG in `{base}` a default before the first FROM, or pass it with --build-arg"
                )
            }
            Self::VariableInFrom => "write `FROM $VARIABLE AS name` and copy from `name`".to_owned(),
            Self::CopyFromLater { from, stage } => format!("move stage `{from}` above stage `{stage}`"),
            Self::MountFromLater { from, .. } => format!("move stage `{from}` above this one"),
            Self::StageIndex(_) => "stages count from 0, in file order".to_owned(),
            Self::Circular(_) => "each stage can use only stages that do not use it in turn".to_owned(),
            Self::CopyOfUrl | Self::CopyOfGit => "ADD takes URLs and git repositories".to_owned(),
            Self::StageName { source: ReferenceError::Uppercase(_), .. } => {
                "image names are in lower case, and a stage is referred to by its name in lower case"
                    .to_owned()
            }
            Self::SymbolicChmod(_) => "modes are octal, as 0755, or symbolic, as u+x,go-w".to_owned(),
            Self::NoArguments => "name a program: an empty array runs nothing".to_owned(),
            Self::EmptyPlatform { .. } => "leave --platform out to build for the default platform".to_owned(),
            _ => return None,
        })
    }
}
