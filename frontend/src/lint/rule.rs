//! The rules.

/// A lint rule of BuildKit's frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is described by `description`")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JSONArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

/// What is fixed about a rule.
struct Facts {
    name: &'static str,
    description: &'static str,
    page: &'static str,
}

impl Rule {
    /// All rules in BuildKit's order.
    pub const ALL: [Self; 22] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JSONArgsRecommended,
        Self::MaintainerDeprecated,
        Self::UndefinedArgInFrom,
        Self::WorkdirRelativePath,
        Self::UndefinedVar,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::InvalidBaseImagePlatform,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::InvalidDefaultArgInFrom,
        Self::FromPlatformFlagConstDisallowed,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
    ];

    /// The name, as `skip=` takes it.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// One sentence on what the rule asks for.
    pub fn description(self) -> &'static str {
        self.facts().description
    }

    /// The page about the rule; empty where BuildKit has none.
    pub fn url(self) -> &'static str {
        self.facts().page
    }

    /// Whether the rule runs only when asked for.
    pub fn experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }
}

macro_rules! facts {
    ($($rule:ident, $page:literal, $description:literal;)*) => {
        impl Rule {
            fn facts(self) -> Facts {
                match self {
                    $(Self::$rule => Facts {
                        name: stringify!($rule),
                        description: $description,
                        page: concat!("https://docs.docker.com/go/dockerfile/rule/", $page, "/"),
                    },)*
                    // The only rule without a page.
                    Self::InvalidBaseImagePlatform => Facts {
                        name: "InvalidBaseImagePlatform",
                        description: "Base image platform does not match expected target platform",
                        page: "",
                    },
                }
            }
        }
    };
}

facts! {
    StageNameCasing, "stage-name-casing", "Stage names should be lowercase";
    FromAsCasing, "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword";
    NoEmptyContinuation, "no-empty-continuation", "Empty continuation lines will become errors in a future release";
    ConsistentInstructionCasing, "consistent-instruction-casing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)";
    DuplicateStageName, "duplicate-stage-name", "Stage names should be unique";
    ReservedStageName, "reserved-stage-name", "Reserved words should not be used as stage names";
    JSONArgsRecommended, "json-args-recommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals";
    MaintainerDeprecated, "maintainer-deprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author";
    UndefinedArgInFrom, "undefined-arg-in-from", "FROM command must use declared ARGs";
    WorkdirRelativePath, "workdir-relative-path",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes";
    UndefinedVar, "undefined-var", "Variables should be defined before their use";
    MultipleInstructionsDisallowed, "multiple-instructions-disallowed",
        "Multiple instructions of the same type should not be used in the same stage";
    LegacyKeyValueFormat, "legacy-key-value-format",
        "Legacy key/value format with whitespace separator should not be used";
    RedundantTargetPlatform, "redundant-target-platform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior";
    SecretsUsedInArgOrEnv, "secrets-used-in-arg-or-env",
        "Sensitive data should not be used in the ARG or ENV commands";
    InvalidDefaultArgInFrom, "invalid-default-arg-in-from",
        "Default value for global ARG results in an empty or invalid base image name";
    FromPlatformFlagConstDisallowed, "from-platform-flag-const-disallowed",
        "FROM --platform flag should not use a constant value";
    CopyIgnoredFile, "copy-ignored-file", "Attempting to Copy file that is excluded by .dockerignore";
    InvalidDefinitionDescription, "invalid-definition-description",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.";
    ExposeProtoCasing, "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase";
    ExposeInvalidFormat, "expose-invalid-format",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release";
}
