//! Options of encrypted connections to a daemon: buildctl's names.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::client::{ClientError, Tls};
use crate::tls::TlsFiles;

/// PEM files, and whom they name.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// For tcp addresses: the authorities that the daemon's certificate has to come from
    #[arg(long, env = "RBUILD_TLSCACERT", value_name = "FILE", hide_env_values = true, value_parser = path())]
    tlscacert: Option<PathBuf>,
    /// For tcp addresses: the client's certificate
    #[arg(long, env = "RBUILD_TLSCERT", value_name = "FILE", hide_env_values = true, value_parser = path())]
    tlscert: Option<PathBuf>,
    /// For tcp addresses: its key
    #[arg(long, env = "RBUILD_TLSKEY", value_name = "FILE", hide_env_values = true, value_parser = path())]
    tlskey: Option<PathBuf>,
    /// Whom the daemon's certificate has to name [default: the address's host]
    #[arg(long, env = "RBUILD_TLSSERVERNAME", value_name = "NAME", hide_env_values = true)]
    tlsservername: Option<String>,
    /// A directory that holds all three, as ca.pem, cert.pem and key.pem, or ca.crt, tls.crt and tls.key
    #[arg(long, env = "RBUILD_TLSDIR", value_name = "DIR", hide_env_values = true, value_parser = path())]
    tlsdir: Option<PathBuf>,
}

/// The names of these options; each has a value.
pub(super) const NAMES: &[&str] = &["--tlscacert", "--tlscert", "--tlskey", "--tlsservername", "--tlsdir"];

/// Takes an empty path too, unlike clap's own: scripts unset a variable that way.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Args {
    /// What they ask for; an empty value counts as none.
    ///
    /// # Errors
    /// A directory that lacks a file, or files besides a directory.
    pub(super) fn read(self) -> Result<Tls, ClientError> {
        let given = |path: Option<PathBuf>| path.filter(|path| !path.as_os_str().is_empty());
        let files =
            TlsFiles { ca: given(self.tlscacert), cert: given(self.tlscert), key: given(self.tlskey) };
        let server_name = self.tlsservername.filter(|name| !name.is_empty());
        let files = match given(self.tlsdir) {
            None => files,
            Some(dir) if files.is_empty() => TlsFiles::of_dir(&dir)?,
            Some(_) => {
                let text =
                    "`--tlsdir` stands for `--tlscacert`, `--tlscert` and `--tlskey`: give one or the other";
                return Err(ClientError::Usage(text.to_owned()));
            }
        };
        Ok(Tls { files, server_name })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;
    use clap::{CommandFactory as _, Parser as _};

    fn read(options: &[&str]) -> Result<Tls, ClientError> {
        let line = [&["rbuild"], options, &["images"]].concat();
        Cli::try_parse_from(line).unwrap().tls.read()
    }

    #[test]
    fn files_and_directories() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        let given = dir.path().to_str().unwrap();
        assert!(read(&[]).unwrap().files.is_empty());
        assert!(read(&["--tlscert="]).unwrap().files.is_empty());
        let missing = read(&["--tlsdir", given]).unwrap_err().to_string();
        assert_eq!(missing, format!("`{given}` has neither `ca.pem` nor `ca.crt`"));
        for name in ["ca.crt", "cert.pem", "tls.crt", "tls.key"] {
            fs_err::write(path(name), "").unwrap();
        }
        let of = |name| Some(path(name));
        let want = TlsFiles { ca: of("ca.crt"), cert: of("cert.pem"), key: of("tls.key") };
        let tls = read(&["--tlsdir", given, "--tlsservername", "x"]).unwrap();
        assert_eq!(tls, Tls { files: want, server_name: Some("x".to_owned()) });
        assert!(read(&["--tlsdir", given, "--tlskey", "x"]).is_err());
    }

    #[test]
    fn all_have_names() {
        let options = Cli::command()
            .get_arguments()
            .filter_map(clap::Arg::get_long)
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let tls = options.iter().filter(|name| name.starts_with("tls"));
        assert_eq!(tls.map(|name| format!("--{name}")).collect::<Vec<_>>(), NAMES);
    }
}
