//! Steps of a build that failed: what its clients are told of them, and may look into until the build ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cache::fileop::FileOpError;
use proto::errdefs::{self, solve::Subject};
use solver::op::{ActionInput, ExecOp, FileOp};
use solver::{Edge, ExecError, Graph, GraphBuilder, Op, Remains, Vertex, VertexId, VertexMeta};

use super::worker::StepRemains;

/// A step that failed, as the solver left it.
#[derive(Debug, Clone)]
pub(super) struct BrokenStep {
    /// The graph that it is part of.
    pub graph: Arc<Graph>,
    /// Which vertex of it.
    pub vertex: VertexId,
    /// Why it failed.
    pub error: ExecError,
    /// The input that could not be told from others, if that is why.
    pub input: Option<usize>,
    /// What is left of its execution.
    pub remains: Option<Remains>,
}

/// What clients may look into, by the ids that they are told.
#[derive(Debug, Default)]
pub(super) struct Pieces(Mutex<HashMap<String, Piece>>);

/// Something of a step that failed.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// What it was given, or an action of it: a graph's head.
    Made(Arc<Graph>),
    /// What it left at one of its mounts.
    Left(Remains, usize),
}

impl Pieces {
    /// What an id stands for.
    pub(super) fn get(&self, id: &str) -> Option<Piece> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Keeps what can be looked at of a step of `build`, and tells of it as BuildKit does.
    pub(super) fn keep(&self, build: &str, step: &BrokenStep) -> errdefs::Solve {
        let vertex = step.graph.vertex(step.vertex);
        let (inputs, mounts, subject) = step.pieces();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keep = |piece: Option<Piece>| {
            piece.map_or_else(String::new, |piece| {
                let id = format!("{build}-failed-{}", all.len());
                all.insert(id.clone(), piece);
                id
            })
        };
        errdefs::Solve {
            input_i_ds: inputs.into_iter().map(&mut keep).collect(),
            mount_i_ds: mounts.into_iter().map(&mut keep).collect(),
            op: Some(crate::llb::to_op(&step.graph, step.vertex)),
            subject,
            description: vertex.meta.description.clone(),
        }
    }
}

/// What there is for each input, for each mount or action, and what it was that failed.
type Told = (Vec<Option<Piece>>, Vec<Option<Piece>>, Option<Subject>);

impl BrokenStep {
    fn pieces(&self) -> Told {
        let vertex = self.graph.vertex(self.vertex);
        if let Some(input) = self.input {
            let subject = Subject::Cache(errdefs::ContentCache { index: input as i64 });
            return (vec![self.input(Some(input))], Vec::new(), Some(subject));
        }
        match &vertex.op {
            Op::Exec(op) => {
                let (inputs, mounts) = self.of_exec(op);
                (inputs, mounts, None)
            }
            Op::File(op) => match self.action() {
                Some(failed) if failed < op.actions.len() => self.of_file(op, failed),
                _ => Told::default(),
            },
            _ => Told::default(),
        }
    }

    /// By mount, as a container of a client is given them.
    fn of_exec(&self, op: &ExecOp) -> (Vec<Option<Piece>>, Vec<Option<Piece>>) {
        let inputs: Vec<_> = op.mounts.iter().map(|mount| self.input(mount.input)).collect();
        let left = |mount: usize| {
            let remains = self.remains.as_ref()?;
            remains.get::<StepRemains>()?.has(mount).then(|| Piece::Left(remains.clone(), mount))
        };
        let mounts = inputs.iter().enumerate().map(|(mount, input)| left(mount).or_else(|| input.clone()));
        let mounts = mounts.collect();
        (inputs, mounts)
    }

    /// What the action that failed was to change, in its place among the actions, and what it copied from in its own.
    fn of_file(&self, op: &FileOp, failed: usize) -> Told {
        let inputs = (0..self.graph.vertex(self.vertex).inputs.len()).map(|input| self.input(Some(input)));
        let mut actions = vec![None; op.actions.len()];
        let action = &op.actions[failed];
        if let ActionInput::Action(earlier) = action.secondary
            && let Some(place) = actions.get_mut(earlier)
        {
            *place = self.after(op, earlier);
        }
        actions[failed] = match action.input {
            ActionInput::Vertex(input) => self.input(Some(input)),
            ActionInput::Action(earlier) => self.after(op, earlier),
            ActionInput::Scratch => Some(Piece::Made(Arc::new(GraphBuilder::new().finish(None)))),
        };
        (inputs.collect(), actions, Some(Subject::File(errdefs::FileAction { index: failed as i64 })))
    }

    fn input(&self, input: Option<usize>) -> Option<Piece> {
        let edge = *self.graph.vertex(self.vertex).inputs.get(input?)?;
        let mut graph = Graph::clone(&self.graph);
        graph.head = Some(edge);
        Some(Piece::Made(Arc::new(graph)))
    }

    /// What is made by a file operation's actions up to the one at `last`.
    fn after(&self, op: &FileOp, last: usize) -> Option<Piece> {
        let mut actions = op.actions.get(..=last)?.to_vec();
        actions.iter_mut().for_each(|action| action.output = None);
        actions.last_mut()?.output = Some(0);
        let mut graph = GraphBuilder::new();
        for before in &self.graph.vertices()[..self.vertex.index()] {
            graph.add(before.clone()).ok()?;
        }
        let vertex = self.graph.vertex(self.vertex);
        let op = Op::File(FileOp { actions });
        let name = "[internal] make again what a failed step had made";
        let description = [("llb.customname".to_owned(), name.to_owned())].into();
        let meta = VertexMeta { description, ..VertexMeta::default() };
        let vertex = graph.add(Vertex { op, meta, ..vertex.clone() }).ok()?;
        Some(Piece::Made(Arc::new(graph.finish(Some(Edge { vertex, output: 0 })))))
    }

    /// The action of a file operation that failed.
    fn action(&self) -> Option<usize> {
        let ExecError::Failed(error) = &self.error else { return None };
        match error.downcast_ref()? {
            FileOpError::Action { action, .. } => Some(*action),
            _ => None,
        }
    }
}
