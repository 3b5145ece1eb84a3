//! Object stores: S3 buckets, Azure containers and Google buckets under one set of verbs.
//!
//! Requests, signatures and the sources of credentials are `opendal`'s; this module opens stores by typed configuration and
//! tells errors by store and object. Nothing is set up before a store is opened, and nothing is asked before a verb is called.
//!
//! Invariants:
//! - No error and no `Debug` output holds a secret or a URL with a query.
//! - A put is whole or not there: objects of several parts appear when the last one is in.
//! - Bytes that are read are the store's word: callers verify digests.

mod azure;
mod error;
mod google;
mod http;
mod place;
mod store;

pub use error::ObjectError;
pub use google::{GoogleBucket, GoogleCredential, GoogleCredentialError};
pub use http::http_client;
pub use place::{AccessKey, AzureContainer, Place, S3Bucket};
pub use store::{ObjectStat, Objects};
