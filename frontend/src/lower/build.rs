//! The passes, one after the other, and what they share.

use solver::graph::{SourceInfo, SourceLocation, SourceRange};
use solver::op::Platform;
use solver::pattern::PatternMatcher;

use crate::ast::{Directives, Document};
use crate::dockerignore::read_patterns;
use crate::lint::{self, CheckOptions, Finding, Linter};
use crate::lower::arena::{Arena, Output};
use crate::lower::env::EnvList;
use crate::lower::error::{Failure, Failures, Fault, Result};
use crate::lower::name::next_step;
use crate::lower::named::PendingLocal;
use crate::lower::outline::Capture;
use crate::lower::resolved::{ImageRequest, Need, Resolved};
use crate::lower::stage::{Stage, StageId, Stages};
use crate::lower::{LowerError, Lowered, args, base, context, deps, dispatch, epoch, from};
use crate::options::BuildOptions;
use crate::platform;
use crate::span::Lines;
use crate::words::Lexer;

/// What all passes see.
pub(super) struct Context<'a> {
    pub(super) document: &'a Document,
    pub(super) options: &'a BuildOptions,
    pub(super) resolved: &'a dyn Resolved,
    pub(super) lexer: Lexer,
    /// The platform of the result.
    pub(super) target_platform: Platform,
    /// Whether nobody asked for that platform, so that a base image may be of another.
    pub(super) implicit_platform: bool,
    /// ARGs before the first FROM and the predefined ones.
    pub(super) global_args: EnvList,
    pub(super) build_args: std::collections::BTreeMap<String, String>,
    /// Seconds since 1970.
    pub(super) epoch: Option<i64>,
    pub(super) ignored: Vec<String>,
    pub(super) ignore_matcher: Option<PatternMatcher>,
    pub(super) linter: Linter,
    pub(super) arena: Arena,
    /// The main context; what it is comes last, when the used paths are known.
    pub(super) context: Option<Output>,
    pub(super) pending_locals: Vec<PendingLocal>,
    pub(super) images: Vec<ImageRequest>,
    pub(super) outline: Capture,
}

/// Lowers a parsed Dockerfile without errors, for one platform; `None` is the build platform's.
///
/// # Errors
/// [`LowerError::Needs`] when something has to be looked up first, [`LowerError::Failed`] when the file or an
/// option is wrong.
pub fn lower(
    document: &Document,
    options: &BuildOptions,
    platform: Option<&Platform>,
    resolved: &dyn Resolved,
) -> std::result::Result<Lowered, LowerError> {
    run(document, options, platform, resolved).0
}

/// What there is to say about a Dockerfile, right or wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// Lint findings, in the order in which they came.
    pub findings: Vec<Finding>,
    /// The error that ended the search for more.
    pub failure: Option<Failure>,
}

/// Looks a Dockerfile over for `--check`: all stages, unless a target is named.
///
/// # Errors
/// What has to be looked up first, with the findings until there.
pub fn check(
    document: &Document,
    options: &BuildOptions,
    platform: Option<&Platform>,
    resolved: &dyn Resolved,
) -> std::result::Result<Checked, (Vec<Need>, Vec<Finding>)> {
    let all_stages = options.target.as_deref().is_none_or(str::is_empty);
    let options = BuildOptions { all_stages, ..options.clone() };
    let (result, findings, _) = run(document, &options, platform, resolved);
    match result {
        Ok(_) => Ok(Checked { findings, failure: None }),
        Err(LowerError::Failed(failure)) => Ok(Checked { findings, failure: Some(*failure) }),
        Err(LowerError::Needs(needs)) => Err((needs, findings)),
    }
}

/// As [`lower`], with the findings also when it fails, and the images asked for.
pub(crate) fn run(
    document: &Document,
    options: &BuildOptions,
    platform: Option<&Platform>,
    resolved: &dyn Resolved,
) -> (Result<Lowered>, Vec<Finding>, Vec<ImageRequest>) {
    let mut context = match Context::new(document, options, platform, resolved) {
        Ok(context) => context,
        Err(error) => return (Err(error), Vec::new(), Vec::new()),
    };
    let built = context.build();
    let warnings = std::mem::take(&mut context.linter).into_findings();
    let images = std::mem::take(&mut context.images);
    let lowered = match built {
        Ok((stages, target)) => Ok(context.finish(stages, target, warnings.clone(), images.clone())),
        Err(LowerError::Failed(mut failure)) => {
            failure.locate(document);
            failure.findings.clone_from(&warnings);
            Err(LowerError::Failed(failure))
        }
        Err(needs) => Err(needs),
    };
    (lowered, warnings, images)
}

impl<'a> Context<'a> {
    fn new(
        document: &'a Document,
        options: &'a BuildOptions,
        platform: Option<&Platform>,
        resolved: &'a dyn Resolved,
    ) -> Result<Self> {
        let check = match &options.check {
            Some(check) => check.clone(),
            None => file_check_options(&document.directives)?,
        };
        let ignored =
            if options.context.spec.is_local() { read_patterns(resolved.dockerignore()) } else { Vec::new() };
        let ignore_matcher = if ignored.is_empty() { None } else { Some(PatternMatcher::new(&ignored)?) };
        let mut arena = Arena::default();
        Ok(Self {
            document,
            options,
            resolved,
            lexer: Lexer::new(document.directives.escape),
            target_platform: platform.unwrap_or(&options.build_platform).clone(),
            implicit_platform: platform.is_none(),
            global_args: EnvList::default(),
            build_args: options.build_args.clone(),
            epoch: None,
            ignored,
            ignore_matcher,
            linter: Linter::new(check),
            context: context::begin(options, &mut arena, resolved.input("context")),
            arena,
            pending_locals: Vec::new(),
            images: Vec::new(),
            outline: Capture::default(),
        })
    }

    fn build(&mut self) -> Result<(Stages<'a>, StageId)> {
        if self.document.source.text().is_empty() {
            return Err(Fault::Empty.into());
        }
        if self.document.stages.is_empty() {
            return Err(Fault::NoStages.into());
        }
        lint::check_syntax(self.document, &mut self.linter);
        args::set_globals(self)?;
        epoch::resolve(self)?;
        let mut stages = from::stages(self)?;
        let target = from::target(self, &stages)?;
        let mut failures = Failures::default();
        deps::connect(self, &mut stages, &mut failures)?;
        let resolved = base::resolve(self, &mut stages, target);
        let reachable = failures.pass(resolved, &mut self.linter)?;
        dispatch::stages(self, &mut stages, &reachable, target, &mut failures)?;
        failures.end(&mut self.linter)?;
        stages[target].paths.borrow_mut().insert("/".to_owned());
        stages[target].image.config.labels.extend(self.options.labels.clone());
        if let Some(message) = self.linter.failure() {
            return Err(Fault::Lint(message).into());
        }
        context::fill(self, &stages);
        self.set_result_platform(&mut stages, target);
        Ok((stages, target))
    }

    fn set_result_platform(&self, stages: &mut Stages<'_>, target: StageId) {
        let image = &mut stages[target].image;
        if !self.implicit_platform {
            let wanted = &self.target_platform;
            let same = image.os == wanted.os && image.architecture == wanted.architecture;
            image.os.clone_from(&wanted.os);
            image.architecture.clone_from(&wanted.architecture);
            if !wanted.variant.is_empty() || !same {
                image.variant.clone_from(&wanted.variant);
            }
            if !wanted.os_version.is_empty() || !same {
                image.os_version.clone_from(&wanted.os_version);
            }
        }
        image.set_platform(&platform::normalize(&image.platform()));
    }

    fn finish(
        self,
        mut stages: Stages<'_>,
        target: StageId,
        warnings: Vec<Finding>,
        images: Vec<ImageRequest>,
    ) -> Lowered {
        let outline = crate::lower::outline::of(&stages, target);
        let image = std::mem::take(&mut stages[target].image);
        let stage = &stages[target];
        let source = SourceInfo {
            definition: Vec::new(),
            filename: self.document.source.name().to_owned(),
            language: "Dockerfile".to_owned(),
            data: self.document.source.text().as_bytes().to_vec(),
        };
        let reachable = stages.reachable(target);
        let scanned = stages.ids().filter(|&id| reachable[id] && id != target && stages[id].scan_stage);
        let mut scans: Vec<_> =
            scanned.map(|id| (stages[id].label.clone(), stages[id].state.output)).collect();
        let ignore_cache = stage.ignore_cache
            || stages.ids().any(|id| reachable[id] && stages[id].scan_stage && stages[id].ignore_cache);
        if stage.scan_context {
            scans.insert(0, ("context".to_owned(), self.context));
        }
        Lowered {
            scans: scans
                .into_iter()
                .map(|(name, output)| (name, self.arena.graph(output, Some(source.clone()))))
                .collect(),
            graph: self.arena.into_graph(stage.state.output, Some(source)),
            image,
            base_image: stage.base_image.clone(),
            outline,
            warnings,
            images,
            epoch: self.epoch,
            ignore_cache,
        }
    }

    /// Points into the Dockerfile.
    pub(super) fn location(lines: Lines) -> Vec<SourceLocation> {
        let range = SourceRange {
            start_line: lines.start,
            start_character: 0,
            end_line: lines.end,
            end_character: 0,
        };
        vec![SourceLocation { source: 0, ranges: vec![range] }]
    }

    /// Numbers the next step of a stage and names it; `platform` is what the step is done for.
    pub(super) fn step_name<'s>(
        &self,
        stage: &mut Stage<'s>,
        text: &str,
        platform: for<'r> fn(&'r Stage<'s>) -> Option<&'r Platform>,
    ) -> String {
        // Only the names of builds for several platforms show them, and only those of cross builds read the variables.
        let platform = self.shown_platform(platform(stage)).cloned();
        let env = platform.as_ref().map(|_| stage.state.env.clone()).unwrap_or_default();
        next_step(stage, text, platform.as_ref(), &env)
    }

    /// The platform to show in the names of steps, if any.
    pub(super) fn shown_platform<'p>(&self, platform: Option<&'p Platform>) -> Option<&'p Platform> {
        platform.filter(|_| self.options.multi_platform)
    }
}

fn file_check_options(directives: &Directives) -> Result<CheckOptions> {
    Ok(match &directives.check {
        Some(directive) => CheckOptions::parse(directive.first_word())?,
        None => CheckOptions::default(),
    })
}
