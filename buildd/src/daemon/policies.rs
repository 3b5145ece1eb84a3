//! Source policies: what a build may take its sources from, and what takes the place of which.
//!
//! They apply to every graph before anything of it is keyed, and to whatever is asked about a source. A build has rules of its
//! own, those that its frontend adds, and a client that may want to decide itself.

mod normal;
mod rules;

use std::sync::{Mutex, PoisonError};

use proto::gateway::{ResolveSourceMetaRequest, ResolveSourceMetaResponse};
use proto::pb;
use proto::policysession::check_policy_response::Result as Answer;
use proto::policysession::{CheckPolicyRequest, DecisionResponse};
use proto::sourcepolicy::{Policy, PolicyAction};
use solver::op::{Platform, SourceOp};
use solver::{ExecError, Graph, GraphBuilder, Op, VertexId};
use tonic::Code;

use super::failure::Failure;
use super::gateway::source_meta;
use super::parts::Parts;
use super::run::Run;
use crate::errdetails::Refusal;
use crate::session::{ARRIVAL, SessionError};
use normal::normal;
use rules::RuleError;
pub(super) use rules::Rules;

/// How often a client may answer about one source with another question.
const QUESTIONS: usize = 10;

/// The policies of one build.
#[derive(Debug, Default)]
pub(super) struct Policies {
    rules: Rules,
    /// The session of the client that decides; empty where none does.
    session: String,
    /// What the client has decided.
    decided: Mutex<Vec<Decided>>,
}

/// What a client put in a source's place.
#[derive(Debug)]
struct Decided {
    asked: (SourceOp, Option<Platform>),
    answer: SourceOp,
}

/// A source that must not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PolicyError {
    /// By the rules.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// By the client.
    #[error("source {identifier:?} not allowed by policy: action {action}")]
    NotAllowed {
        /// The source.
        identifier: String,
        /// What the client decided.
        action: String,
        /// Why, in the client's words.
        messages: Vec<String>,
    },
    /// The client cannot be asked, or failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The client asks about something else.
    #[error("policy requested different source identifier: {asked:?} != {identifier:?}")]
    OtherSource {
        /// What the client asks about.
        asked: String,
        /// What it was asked about.
        identifier: String,
    },
    /// The client asks about something else.
    #[error("policy requested different source attrs")]
    OtherAttrs,
    /// What the client wants to know cannot be told.
    #[error("error resolving source metadata from policy request: {0}")]
    Unresolved(#[source] Box<Failure>),
    /// The client neither decides nor asks.
    #[error("no decision in policy response")]
    NoDecision,
    /// The client puts nothing in a source's place.
    #[error("convert action requires updated source")]
    NoUpdate,
    /// The client goes on asking.
    #[error("too many policy requests")]
    TooMany,
}

/// Why a graph is not built.
#[derive(Debug, thiserror::Error)]
#[error("failed to load LLB: error evaluating the source policy: {0}")]
struct NotLoaded(String);

impl Policies {
    /// The policies of a request.
    ///
    /// # Errors
    /// Rules that cannot be.
    pub(super) fn new(policy: Option<&Policy>, session: &str) -> Result<Self, Failure> {
        let rules = Rules::new(policy.map(std::slice::from_ref).unwrap_or_default());
        let rules = rules.map_err(|e| Failure::invalid(&e))?;
        Ok(Self { rules, session: session.to_owned(), decided: Mutex::default() })
    }

    fn decided(&self, asked: &(SourceOp, Option<Platform>)) -> Option<SourceOp> {
        let decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.iter().find(|d| d.asked == *asked).map(|d| d.answer.clone())
    }

    /// The client was asked, and what it put in the place is not asked about again.
    fn note(&self, asked: Vec<(SourceOp, Option<Platform>)>, answer: &SourceOp) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.extend(asked.into_iter().map(|asked| Decided { asked, answer: answer.clone() }));
    }
}

/// Applies a build's policies, and `more` rules, to the sources of a graph.
///
/// # Errors
/// A source that must not be used, in its place.
pub(super) async fn apply(parts: &Parts, run: &Run, graph: Graph, more: &Rules) -> Result<Graph, Failure> {
    if run.policies.rules.is_empty() && run.policies.session.is_empty() && more.is_empty() {
        return Ok(graph);
    }
    let sources = graph.vertices().iter().enumerate().filter_map(|(i, vertex)| match &vertex.op {
        Op::Source(op) => Some((i, op, vertex.platform.as_ref())),
        _ => None,
    });
    let graph_ref = &graph;
    let converted = sources.map(|(i, op, platform)| async move {
        let other = evaluate(parts, run, op, platform, more).await.map_err(|e| {
            let error = ExecError::failed(NotLoaded(e.to_string()));
            let mut failure = Failure::of_graph(graph_ref, Some(VertexId(i as u32)), &error);
            failure.details.vertex = None;
            e.detail(failure)
        })?;
        Ok::<_, Failure>((i, (other != *op).then_some(other)))
    });
    let converted = futures_util::future::try_join_all(converted).await?;
    let mut others: Vec<(usize, SourceOp)> =
        converted.into_iter().filter_map(|(i, other)| Some((i, other?))).collect();
    if others.is_empty() {
        return Ok(graph);
    }
    let mut builder = GraphBuilder::with_capacity(graph.vertices().len());
    for source in &graph.sources {
        builder.add_source(source.clone());
    }
    let mut changed = vec![false; graph.vertices().len()];
    for (i, vertex) in graph.vertices().iter().enumerate() {
        let mut vertex = vertex.clone();
        if let Some(at) = others.iter().position(|(other, _)| *other == i) {
            vertex.op = Op::Source(others.swap_remove(at).1);
            changed[i] = true;
        }
        changed[i] |= vertex.inputs.iter().any(|edge| changed[edge.vertex.index()]);
        if changed[i] {
            // It is another operation than the client's.
            vertex.meta.llb_digest = None;
        }
        builder.add(vertex).map_err(|e| Failure::invalid(&e))?;
    }
    Ok(builder.finish(graph.head))
}

/// What is to be used in place of a source that somebody asks about.
///
/// # Errors
/// A source that must not be used.
pub(super) async fn resolve(
    parts: &Parts,
    run: &Run,
    op: &SourceOp,
    platform: Option<&Platform>,
    more: &Rules,
) -> Result<SourceOp, Failure> {
    evaluate(parts, run, op, platform, more).await.map_err(|e| {
        let message = format!("could not resolve image due to policy: {e}");
        e.detail(Failure::new(Code::Unknown, message))
    })
}

async fn evaluate(
    parts: &Parts,
    run: &Run,
    op: &SourceOp,
    platform: Option<&Platform>,
    more: &Rules,
) -> Result<SourceOp, PolicyError> {
    let Policies { rules, session, .. } = &run.policies;
    let rules = rules.then(more);
    let mut op = rules.evaluate(op)?;
    if session.is_empty() {
        return Ok(op);
    }
    let client = parts.sessions.get(session, ARRIVAL).await?;
    let mut asked = Vec::new();
    let mut source = ResolveSourceMetaResponse::default();
    for _ in 0..QUESTIONS {
        let this = (op.clone(), platform.cloned());
        if let Some(answer) = run.policies.decided(&this) {
            return Ok(answer);
        }
        source.source = Some(pb::SourceOp { identifier: normal(&op), attrs: op.attrs.clone() });
        let request = CheckPolicyRequest {
            platform: platform.map(crate::llb::to_platform),
            source: Some(source.clone()),
            ..CheckPolicyRequest::default()
        };
        match client.check_policy(request).await?.result {
            Some(Answer::Request(question)) => {
                source = answer(parts, run, &op, question, &rules).await?;
            }
            Some(Answer::Decision(decision)) => {
                asked.push(this);
                match converted(decision, &op)? {
                    None => {
                        run.policies.note(asked, &op);
                        return Ok(op);
                    }
                    Some(other) => {
                        op = rules.evaluate(&other)?;
                        source = ResolveSourceMetaResponse::default();
                    }
                }
            }
            None => return Err(PolicyError::NoDecision),
        }
    }
    Err(PolicyError::TooMany)
}

/// What a client wants in the place of a source that it does not forbid; `None` is the source itself.
fn converted(decision: DecisionResponse, op: &SourceOp) -> Result<Option<SourceOp>, PolicyError> {
    match PolicyAction::try_from(decision.action) {
        Ok(PolicyAction::Allow) => Ok(None),
        Ok(PolicyAction::Convert) => {
            let other = decision.update.ok_or(PolicyError::NoUpdate)?;
            Ok(Some(SourceOp { identifier: other.identifier, attrs: other.attrs }))
        }
        action => Err(PolicyError::NotAllowed {
            identifier: normal(op),
            action: action.map_or_else(|number| number.0.to_string(), |a| a.as_str_name().to_owned()),
            messages: decision.deny_messages.into_iter().map(|m| m.message).collect(),
        }),
    }
}

/// Tells a client what it wants to know of a source before it decides.
async fn answer(
    parts: &Parts,
    run: &Run,
    op: &SourceOp,
    question: ResolveSourceMetaRequest,
    rules: &Rules,
) -> Result<ResolveSourceMetaResponse, PolicyError> {
    let asked = question.source.clone().unwrap_or_default();
    let identifier = normal(op);
    if asked.identifier != identifier {
        return Err(PolicyError::OtherSource { asked: asked.identifier, identifier });
    }
    if asked.attrs != op.attrs {
        return Err(PolicyError::OtherAttrs);
    }
    let op = rules.evaluate(op)?;
    let told = source_meta(parts, run, question, op).await;
    told.map_err(|failure| PolicyError::Unresolved(Box::new(failure)))
}

impl PolicyError {
    /// A failure with this error's own words besides.
    fn detail(self, mut failure: Failure) -> Failure {
        if let Self::NotAllowed { messages, .. } = self
            && !messages.is_empty()
        {
            failure.details.refusal = Some(Box::new(Refusal::Denied(messages)));
        }
        failure
    }
}
