//! Names of drop reasons, from the enums in the running kernel's BTF: their numbers differ from
//! kernel to kernel. Subsystems have enums of their own, in modules maybe.

use std::path::Path;

use super::btf::Btf;
use crate::model::drops::DropNames;

/// Subsystems' enums, with the module that has each where it is not built in: net/openvswitch/drop.h
/// and net/mac80211/drop.h.
const SUBSYSTEMS: &[(&str, &str)] = &[
    ("ovs_drop_reason", "openvswitch"),
    ("mac80211_drop_reason", "mac80211"),
];

/// The kernel's own, and those of subsystems that are built in.
pub(super) fn of(btf: &Btf) -> DropNames {
    let prefix = "SKB_DROP_REASON_SUBSYS_";
    let mut names = DropNames {
        reasons: btf.enumerators("skb_drop_reason"),
        subsystems: btf.enumerators("skb_drop_reason_subsys"),
        ..DropNames::default()
    };
    for name in names.subsystems.values_mut() {
        *name = name.trim_start_matches(prefix).to_owned();
    }
    for name in names.reasons.values_mut() {
        *name = name.trim_start_matches("SKB_DROP_REASON_").to_owned();
    }
    for (subsystem, _) in SUBSYSTEMS {
        names.reasons.extend(btf.enumerators(subsystem));
    }
    names
}

/// The same with those of modules that are loaded now.
pub(super) fn with_modules(mut names: DropNames) -> DropNames {
    for (subsystem, module) in SUBSYSTEMS {
        if Path::new("/sys/kernel/btf").join(module).exists()
            && let Ok(btf) = Btf::of_kernel(module)
        {
            names.reasons.extend(btf.enumerators(subsystem));
        }
    }
    super::trim::release_freed();
    names
}
