//! A running container and whoever holds its ends: the client on the same host, or the daemon for a client elsewhere.

mod outcome;
mod relay;
mod streams;

pub(crate) use outcome::report;
pub(crate) use relay::{Ends, Responses, UNREAD, feed, forward, relay, response};
pub(crate) use streams::{Source, Streams, output_pipe, resize};
