//! Which devices a build may use: those that its client grants it, and those that anybody may use.

use std::collections::{BTreeMap, BTreeSet};

use solver::op::CdiDevice;

use super::{Device, Devices, Unregistered, find};
use crate::csv;

/// The entitlement's name; with `=NAME` after it, for one device, which `,alias=OTHER` lets go by another name.
pub(in crate::daemon) const DEVICE: &str = "device";

/// What a client grants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Grants {
    all: bool,
    /// Names, each with the device's own name where it is an alias.
    named: BTreeMap<String, Option<String>>,
}

/// A device that a build may not use, or a grant that says nothing.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum GrantError {
    #[error(transparent)]
    Csv(#[from] csv::OpenQuote),
    #[error("unknown device config key `{0}`")]
    Key(String),
    #[error("invalid device config `{0}`")]
    Field(String),
    #[error(transparent)]
    Unregistered(#[from] Unregistered),
    #[error("device {0} is requested by the build but not allowed")]
    One(String),
    #[error("devices {} are requested by the build but not allowed", .0.join(", "))]
    Several(Vec<String>),
}

impl Grants {
    /// What the entitlements of a build grant.
    ///
    /// # Errors
    /// A grant with something other than an alias.
    pub(in crate::daemon) fn of<'a>(
        entitlements: impl IntoIterator<Item = &'a String>,
    ) -> Result<Self, GrantError> {
        let mut grants = Self::default();
        for entitlement in entitlements {
            let (name, rest) = entitlement.split_once('=').unwrap_or((entitlement, ""));
            if name != DEVICE {
                continue;
            }
            let mut fields = csv::fields(rest)?.into_iter();
            let Some(device) = fields.next().filter(|device| !device.is_empty()) else {
                grants.all = true;
                continue;
            };
            let mut alias = None;
            for field in fields {
                match field.split_once('=') {
                    Some(("alias", name)) => alias = Some(name.to_owned()),
                    Some((key, _)) => return Err(GrantError::Key(key.to_owned())),
                    None => return Err(GrantError::Field(field)),
                }
            }
            match alias {
                Some(alias) => grants.named.insert(alias, Some(device)),
                None => grants.named.insert(device, None),
            };
        }
        Ok(grants)
    }

    /// The devices for what a step asks for, by their own names. Blocking.
    ///
    /// # Errors
    /// A device that is not there and not optional, or not granted.
    pub(in crate::daemon) fn resolve(
        &self,
        wanted: &[CdiDevice],
        devices: &Devices,
    ) -> Result<Vec<CdiDevice>, GrantError> {
        if self.all {
            return Ok(wanted.to_vec());
        }
        let aliased = |device: &CdiDevice| self.named.get(&device.name).cloned().flatten();
        let mut given: Vec<CdiDevice> = wanted
            .iter()
            .filter_map(|device| aliased(device).map(|name| CdiDevice { name, ..device.clone() }))
            .collect();
        let all = devices.all();
        let found = find(&all, wanted.iter().filter(|device| aliased(device).is_none()))?;
        let granted = self.granted(&all);
        let (fine, forbidden): (Vec<String>, Vec<String>) = found.into_iter().partition(|name| {
            granted.contains(name) || all.get(name).is_some_and(|device| device.auto_allowed)
        });
        match &forbidden[..] {
            [] => {}
            [one] => return Err(GrantError::One(one.clone())),
            _ => return Err(GrantError::Several(forbidden)),
        }
        given.extend(fine.into_iter().map(|name| CdiDevice { name, optional: false }));
        Ok(given)
    }

    fn granted(&self, all: &BTreeMap<String, Device>) -> BTreeSet<String> {
        let names = self.named.iter().filter(|(_, device)| device.is_none());
        let named = names.map(|(name, _)| CdiDevice { name: name.clone(), optional: true });
        find(all, &named.collect::<Vec<_>>()).unwrap_or_default().into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants() {
        let dir = tempfile::tempdir().unwrap();
        let text = "cdiVersion: '0.6.0'\nkind: v.com/d\ndevices:\n- {name: a, containerEdits: {}}\n- {name: b, containerEdits: {}}\n";
        fs_err::write(dir.path().join("v.yaml"), text).unwrap();
        let devices = Devices::new(&[dir.path().to_owned()], &["v.com/d=b".to_owned()]);
        let of = |entitlements: &[&str], name: &str| {
            let entitlements: Vec<String> = entitlements.iter().map(|e| (*e).to_owned()).collect();
            let wanted = [CdiDevice { name: name.to_owned(), optional: false }];
            let found = Grants::of(&entitlements).and_then(|grants| grants.resolve(&wanted, &devices));
            let names = |found: Vec<CdiDevice>| found.into_iter().map(|d| d.name).collect::<Vec<_>>();
            found.map(names).map_err(|error| error.to_string())
        };
        let owned = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[], "v.com/d=b"), owned(&["v.com/d=b"]), "anybody may");
        assert_eq!(of(&["device=v.com/d=a"], "v.com/d=a"), owned(&["v.com/d=a"]));
        assert_eq!(
            of(&["network.host", "device=v.com/d=*"], "v.com/d=*"),
            owned(&["v.com/d=a", "v.com/d=b"])
        );
        assert_eq!(of(&["device"], "v.com/d=a"), owned(&["v.com/d=a"]));
        assert_eq!(of(&["device=v.com/d=a,alias=x"], "x"), owned(&["v.com/d=a"]));
        for (entitlements, name, reason) in [
            (&[][..], "v.com/d=a", "device v.com/d=a is requested by the build but not allowed"),
            (
                &["device=v.com/other"],
                "v.com/d=*",
                "device v.com/d=a is requested by the build but not allowed",
            ),
            (&["device=v.com/d=a,alias=x"], "v.com/d=a", "not allowed"),
            (&[], "v.com/none=a", "is not registered"),
            (&["device=v.com/d=a,mode=x"], "v.com/d=a", "unknown device config key `mode`"),
            (&["device=v.com/d=a,x"], "v.com/d=a", "invalid device config `x`"),
        ] {
            let error = of(entitlements, name).unwrap_err();
            assert!(error.contains(reason), "{entitlements:?}: {error}");
        }
    }
}
