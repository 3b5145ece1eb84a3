//! All that Status messages said.

use std::collections::{BTreeSet, HashMap};

use proto::control::{StatusResponse, Vertex};

use super::interval::{Nanos, nanos};
use super::vertex::Shown;

/// What is known of a build. Vertices are named by their digests, groups by their ids.
#[derive(Debug, Default)]
pub struct Trace {
    pub(super) vertices: HashMap<String, Shown>,
    /// In the order of their starts.
    pub(super) order: Vec<String>,
    /// Changed since they were printed.
    pub(super) updates: BTreeSet<String>,
    /// Members to the group that stands for them.
    groups: HashMap<String, String>,
    members: HashMap<String, Vertex>,
    /// When the first vertex started, by the daemon's clock.
    pub(super) started: Option<Nanos>,
    /// Numbers are given on the first print.
    next_index: usize,
}

impl Trace {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a message.
    pub fn update(&mut self, message: StatusResponse) {
        let mut groups = BTreeSet::new();
        for vertex in message.vertexes {
            if self.started.is_none() {
                self.started = vertex.started.as_ref().map(nanos);
            }
            match vertex.progress_group.as_ref().map(|group| group.id.clone()) {
                Some(group) => {
                    self.member(&group, vertex);
                    groups.insert(group);
                }
                None => self.vertex(&vertex),
            }
        }
        for group in groups {
            self.refresh(&group);
        }
        for status in message.statuses {
            let id = self.shown_as(&status.vertex).to_owned();
            if let Some(shown) = self.vertices.get_mut(&id) {
                shown.status(&status);
                self.updates.insert(id);
            }
        }
        for warning in message.warnings {
            let id = self.shown_as(&warning.vertex).to_owned();
            if let Some(shown) = self.vertices.get_mut(&id) {
                shown.warnings.push(String::from_utf8_lossy(&warning.short).into_owned());
                shown.count();
                self.updates.insert(id);
            }
        }
        for log in message.logs {
            let id = self.shown_as(&log.vertex).to_owned();
            if let Some(shown) = self.vertices.get_mut(&id) {
                shown.log(log);
                self.updates.insert(id);
            }
        }
    }

    /// Gives a vertex its number, the first time that it is printed.
    pub(super) fn number(&mut self, id: &str) -> usize {
        let Some(shown) = self.vertices.get_mut(id) else { return 0 };
        if shown.index == 0 {
            self.next_index += 1;
            shown.index = self.next_index;
        }
        shown.index
    }

    /// How many vertices are shown in all, and how many of them are done.
    pub(super) fn counts(&self) -> (usize, usize) {
        let shown = self.vertices.values().filter(|v| !v.hidden);
        shown.fold((0, 0), |(all, done), v| (all + 1, done + usize::from(v.completed())))
    }

    fn shown_as<'a>(&'a self, digest: &'a str) -> &'a str {
        self.groups.get(digest).map_or(digest, String::as_str)
    }

    fn vertex(&mut self, vertex: &Vertex) {
        let shown = self.vertices.entry(vertex.digest.clone()).or_default();
        let was_started = shown.started();
        if shown.update(vertex) {
            self.updates.insert(vertex.digest.clone());
        }
        if !was_started && shown.started() {
            self.order.push(vertex.digest.clone());
        }
    }

    fn member(&mut self, group: &str, vertex: Vertex) {
        let shown = self.vertices.entry(group.to_owned()).or_insert_with(|| {
            Shown::group(vertex.progress_group.as_ref().map(|g| g.name.clone()).unwrap_or_default())
        });
        shown.members.insert(vertex.digest.clone());
        self.groups.insert(vertex.digest.clone(), group.to_owned());
        self.members.insert(vertex.digest.clone(), vertex);
    }

    /// Makes a group out of its members: it runs while any runs, is cached when all are, and fails with the first.
    fn refresh(&mut self, group: &str) {
        let Some(shown) = self.vertices.get_mut(group) else { return };
        let before = (shown.cached, shown.error.clone(), shown.intervals.last(), shown.hidden);
        shown.cached = true;
        let mut ids: Vec<_> = shown.members.iter().collect();
        ids.sort_unstable();
        let mut errors = String::new();
        for member in ids.into_iter().filter_map(|id| self.members.get(id)) {
            shown.cached &= member.cached;
            if let Some(start) = &member.started {
                shown.intervals.set(nanos(start), member.completed.as_ref().map(nanos));
                shown.hidden &= member.progress_group.as_ref().is_some_and(|g| g.weak);
            }
            if errors.is_empty() && !member.error.is_empty() {
                errors.clone_from(&member.error);
                shown.hidden = false;
            }
        }
        shown.error = errors;
        let after = (shown.cached, shown.error.clone(), shown.intervals.last(), shown.hidden);
        if shown.hidden || before == after {
            return;
        }
        shown.count();
        if before.3 {
            self.order.push(group.to_owned());
        }
        self.updates.insert(group.to_owned());
    }

    /// What is shown again of the vertices that failed.
    pub(super) fn error_logs(&self) -> String {
        let mut text = String::new();
        for shown in self.order.iter().filter_map(|id| self.vertices.get(id)).filter(|v| v.failed()) {
            text.push_str(&format!("------\n > {}:\n", shown.name));
            for line in &shown.tail {
                text.push_str(&String::from_utf8_lossy(line));
                text.push('\n');
            }
            text.push_str("------\n");
        }
        text
    }
}
