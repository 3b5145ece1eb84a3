//! Where objects are: the configuration of a store.

use opendal::Operator;
use opendal::services::{Azblob, S3};

use super::{GoogleBucket, ObjectError};
use crate::registry::Secret;

/// A store of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A bucket of Amazon S3 or of a service that speaks its protocol.
    S3(S3Bucket),
    /// A container of Azure Blob Storage.
    Azure(AzureContainer),
    /// A bucket of Google Cloud Storage.
    Google(GoogleBucket),
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Bucket {
    /// Its name.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The service's URL; none is Amazon's, or `$AWS_ENDPOINT_URL`.
    pub endpoint: Option<String>,
    /// The bucket is the first part of the path rather than of the host's name.
    pub path_style: bool,
    /// Who we are; none is what the process's environment, its configuration files or its machine say.
    pub access_key: Option<AccessKey>,
    /// How often a request is made at most, the first time included.
    pub attempts: u32,
}

/// An access key of Amazon's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its name.
    pub id: String,
    /// What requests are signed with.
    pub secret: Secret,
    /// The token of a temporary key.
    pub session: Option<Secret>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureContainer {
    /// The account's URL.
    pub account_url: String,
    /// The account's name.
    pub account: String,
    /// The container's name.
    pub container: String,
    /// The account's key; none is what the process's environment or its machine say.
    pub key: Option<Secret>,
}

impl Place {
    /// What the store is called in errors.
    pub(super) fn name(&self) -> String {
        match self {
            Self::S3(s3) => format!("S3 bucket `{}`", s3.bucket),
            Self::Azure(azure) => format!("Azure container `{}`", azure.container),
            Self::Google(google) => format!("Google bucket `{}`", google.bucket),
        }
    }

    /// The URL that connections go to; empty for the service's own.
    pub(super) fn url(&self) -> &str {
        match self {
            Self::S3(s3) => s3.endpoint.as_deref().unwrap_or_default(),
            Self::Azure(azure) => &azure.account_url,
            Self::Google(google) => google.endpoint.as_deref().unwrap_or_default(),
        }
    }

    /// How often a request is made at most.
    pub(super) fn attempts(&self) -> u32 {
        match self {
            Self::S3(s3) => s3.attempts,
            Self::Azure(_) | Self::Google(_) => ATTEMPTS,
        }
    }

    pub(super) fn operator(&self) -> Result<Operator, ObjectError> {
        let made = match self {
            Self::S3(s3) => Operator::new(s3.builder()),
            Self::Azure(azure) => Operator::new(azure.builder()),
            Self::Google(google) => Operator::new(google.builder()),
        };
        made.map_err(|error| ObjectError::Config { store: self.name(), reason: error.message().to_owned() })
    }
}

/// As Azure's own libraries do: three retries.
const ATTEMPTS: u32 = 4;

impl S3Bucket {
    fn builder(&self) -> S3 {
        let mut builder = S3::default().bucket(&self.bucket).region(&self.region);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if !self.wants_path() {
            builder = builder.enable_virtual_host_style();
        }
        if let Some(key) = &self.access_key {
            builder = builder.access_key_id(&key.id).secret_access_key(key.secret.expose());
            if let Some(session) = &key.session {
                builder = builder.session_token(session.expose());
            }
        }
        builder
    }

    /// Whether the bucket goes into the path: also where it cannot be part of a host's name (Amazon's endpoint rules).
    fn wants_path(&self) -> bool {
        let url = self.endpoint.as_deref().and_then(|url| url::Url::parse(url).ok());
        let is_address =
            url.is_some_and(|url| matches!(url.host(), Some(url::Host::Ipv4(_) | url::Host::Ipv6(_))));
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        self.path_style || is_address || !self.bucket.chars().all(fits)
    }
}

impl AzureContainer {
    fn builder(&self) -> Azblob {
        let builder = Azblob::default()
            .container(&self.container)
            .endpoint(self.account_url.trim_end_matches('/'))
            .account_name(&self.account);
        match &self.key {
            Some(key) => builder.account_key(key.expose()),
            None => builder,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::GoogleCredential;

    fn bucket(name: &str, endpoint: &str, path_style: bool) -> S3Bucket {
        S3Bucket {
            bucket: name.into(),
            region: "r".into(),
            endpoint: Some(endpoint.into()).filter(|url: &String| !url.is_empty()),
            path_style,
            access_key: None,
            attempts: 1,
        }
    }

    #[test]
    fn where_the_bucket_goes() {
        for (name, endpoint, path_style, want) in [
            ("b-1", "", false, false),
            ("b.1", "", false, true),
            ("b", "https://h.example", false, false),
            ("b", "https://h.example", true, true),
            ("b", "http://127.0.0.1:9000", false, true),
            ("b", "http://[::1]:9000", false, true),
        ] {
            assert_eq!(bucket(name, endpoint, path_style).wants_path(), want, "{name} {endpoint}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let key = AccessKey {
            id: "id".into(),
            secret: Secret::new("geheim"),
            session: Some(Secret::new("geheim")),
        };
        let s3 = Place::S3(S3Bucket { access_key: Some(key), ..bucket("b", "", false) });
        let azure = Place::Azure(AzureContainer {
            account_url: "https://a.example".into(),
            account: "a".into(),
            container: "c".into(),
            key: Some(Secret::new("geheim")),
        });
        let google = Place::Google(GoogleBucket {
            bucket: "b".into(),
            endpoint: None,
            credential: GoogleCredential::Token(Secret::new("geheim")),
        });
        let operators = (s3.operator(), azure.operator(), google.operator());
        let shown = format!("{s3:?} {azure:?} {google:?} {operators:?}");
        assert!(!shown.contains("geheim"), "{shown}");
    }
}
