//! Why the steps of a build ran instead of coming from the cache: what the daemon keeps of each build and tells, as JSON, and what
//! the client shows of it. Field and kind names are what scripts rely on.

mod change;
mod words;

use cache::fileop::difference::DifferentBy;
use serde::{Deserialize, Serialize};

/// What a part of a step begins with that is no work: it tells why the step runs.
pub const BECAUSE: &str = "because ";

/// The header of a request for a build whose steps are to tell while they run why they do.
pub const EXPLAIN_HEADER: &str = "rbuild-explain";

/// Why each step of a build ran.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The build's ref.
    pub build: String,
    /// The ref of the build of the same project that it is compared with, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// That one was of another machine, which wrote a cache that this build reads.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub elsewhere: bool,
    /// Why it failed, if it did, or that it was given up: the first line of its error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it was made of, inputs first.
    pub steps: Vec<Step>,
    /// What set off work, and what that cost.
    pub changes: Vec<Change>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// As in progress: `[build 2/4] RUN make`.
    pub name: String,
    /// Its stage, as its name has it, the platform included where there are several; empty for what has none.
    pub stage: String,
    /// Which steps it stands on.
    pub inputs: Vec<usize>,
    /// How it came to its result.
    pub outcome: Outcome,
    /// How long the build waited for it to be executed, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// The first line of the error that it failed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It ran, and what it stands on gave it no reason to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// Why it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}

impl Step {
    /// Whether it was executed.
    pub fn ran(&self) -> bool {
        self.outcome.is_execution() && self.seconds.is_some()
    }
}

/// How a step came to its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It comes from outside: an image, a repository, a file at a URL, a document in the Dockerfile.
    Source,
    /// From this daemon's cache, or not needed as what stands on it came from a cache.
    Cached,
    /// From a cache that `--cache-from` names.
    Imported,
    /// It ran.
    Ran,
    /// It failed, having run if it has a time: what it needs may have been missing.
    Failed,
    /// It ran, and was given up.
    Canceled,
    /// The build failed or was given up before it.
    NotReached,
}

impl Outcome {
    /// Whether it was executed, or was to be.
    pub fn is_execution(self) -> bool {
        matches!(self, Self::Ran | Self::Failed | Self::Canceled)
    }
}

/// A first cause and what followed from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The step that it set off.
    pub step: usize,
    /// All that ran for it, that one included.
    pub steps: Vec<usize>,
    /// Their times together, in seconds.
    pub seconds: f64,
}

/// Why a step ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// Nothing was built here before from this directory, file and target.
    FirstBuild,
    /// Nothing was built here before for these platforms, but for others.
    Platform {
        /// What the build before was for, separated by commas.
        old: String,
        /// What this one is for.
        new: String,
    },
    /// The build before had no such step.
    NewStep,
    /// It was asked to run again.
    NoCache {
        /// The flag as it was given, if the frontend was given any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flag: Option<String>,
    },
    /// The build before did not finish it.
    Unfinished,
    /// Its instruction is another one.
    Instruction {
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// A document in the Dockerfile (`<<EOF`) that it takes as a file says something else.
    Document {
        /// Its name, such as `EOF`.
        name: String,
    },
    /// An ARG has another value.
    Arg {
        /// Its name.
        name: String,
    },
    /// An ENV has another value.
    Env {
        /// Its name.
        name: String,
    },
    /// A flag of the build has another value.
    Flag {
        /// Such as `--network`.
        name: String,
    },
    /// Something else that the step is run with is different.
    Setting {
        /// Such as `WORKDIR`.
        name: String,
    },
    /// A file that it reads is different.
    File {
        /// Where, in the directory that it comes from.
        path: String,
        /// By what.
        change: DifferentBy,
        /// What it was: a BLAKE3 digest of its content, its mode, its owner.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        old: Option<String>,
        /// What it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        new: Option<String>,
    },
    /// So many more files are different.
    MoreFiles {
        /// How many.
        count: usize,
    },
    /// Files that it reads are different, but what they were is not known any more.
    Files {
        /// The directory's name.
        name: String,
    },
    /// The image that it stands on is another one.
    BaseImage {
        /// Its name.
        name: String,
        /// Its digest before, under the name that it had where that is another one.
        old: String,
        /// Its digest.
        new: String,
    },
    /// A repository or a file at a URL is another one.
    Source {
        /// Where it comes from.
        name: String,
        /// Its digest before.
        old: String,
        /// Its digest.
        new: String,
    },
    /// Its result was removed from the cache.
    Evicted {
        /// When, in milliseconds since 1970.
        at_ms: u64,
        /// By which rule.
        rule: String,
    },
    /// Its result was here, and nobody knows what became of it.
    Lost,
    /// Its result came from a shared cache, and this build looks into none.
    NotAsked,
    /// A cache that was to be looked into did not have it.
    Absent {
        /// Its name.
        cache: String,
        /// Why the cache could not be read, if it could not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A cache that was looked into had its result, but not so that it could be used.
    Refused {
        /// The cache's name.
        cache: String,
        /// Why not: the record is damaged, or signed by nobody who is trusted; a layer cannot be had.
        reason: String,
    },
    /// A step that it stands on gave something else than before.
    Follows {
        /// Which.
        step: usize,
    },
}

impl Explanation {
    /// Finds out what came first and what it cost, from the steps.
    pub fn count(&mut self) {
        let ran = |steps: &[Step], i: usize| steps[i].ran();
        for i in 0..self.steps.len() {
            let follows = self.steps[i].causes.iter().any(|cause| matches!(cause, Cause::Follows { .. }));
            self.steps[i].first = ran(&self.steps, i) && !follows && !self.stands_on_work(i);
        }
        for first in (0..self.steps.len()).filter(|&i| self.steps[i].first) {
            let mut above = vec![false; self.steps.len()];
            above[first] = true;
            for i in first + 1..self.steps.len() {
                above[i] = self.steps[i].inputs.iter().any(|&input| above[input]);
            }
            let steps: Vec<usize> =
                (first..self.steps.len()).filter(|&i| above[i] && ran(&self.steps, i)).collect();
            let seconds = steps.iter().filter_map(|&i| self.steps[i].seconds).sum();
            self.changes.push(Change { step: first, steps, seconds });
        }
    }

    /// Whether a step stands on one that ran.
    fn stands_on_work(&self, step: usize) -> bool {
        let (mut todo, mut seen) = (self.steps[step].inputs.clone(), vec![false; self.steps.len()]);
        while let Some(i) = todo.pop() {
            if self.steps[i].ran() {
                return true;
            }
            if !std::mem::replace(&mut seen[i], true) {
                todo.extend(&self.steps[i].inputs);
            }
        }
        false
    }
}
