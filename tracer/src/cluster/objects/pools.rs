//! Calico's pools of pods' addresses, which are kept in the API alone: `ippools` and `ipamblocks` of
//! `crd.projectcalico.org/v1`.

use kube::{
    Api, Client,
    api::ListParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;

use super::{AddressPool, Got, read::list};
use crate::model::prefix;

/// All pools, and how much of each is given.
///
/// # Errors
/// In words: they may not be read, or Calico keeps none here.
pub(super) async fn get(client: &Client) -> Got<Vec<AddressPool>> {
    let pools = values(client, "IPPool", "ippools").await?;
    let blocks = values(client, "IPAMBlock", "ipamblocks").await?;
    Ok(trim(&pools, &blocks))
}

async fn values(client: &Client, kind: &str, plural: &str) -> Got<Vec<Value>> {
    let kind = GroupVersionKind::gvk("crd.projectcalico.org", "v1", kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let all = list(api, ListParams::default()).await?;
    let values = all.into_iter().map(|one| {
        let mut data = one.data;
        data["name"] = one.metadata.name.into();
        data
    });
    Ok(values.collect())
}

fn trim(pools: &[Value], blocks: &[Value]) -> Vec<AddressPool> {
    let blocks: Vec<_> = blocks
        .iter()
        .filter(|block| block["spec"]["deleted"] != true)
        .filter_map(|block| {
            let (first, _) = prefix::parse(block["spec"]["cidr"].as_str()?)?;
            let given = block["spec"]["allocations"].as_array()?;
            let given = given.iter().filter(|one| !one.is_null()).count();
            Some((first, given as u64))
        })
        .collect();
    let pools = pools.iter().filter_map(|pool| {
        let range = prefix::parse(pool["spec"]["cidr"].as_str()?)?;
        let given = blocks
            .iter()
            .filter(|(first, _)| prefix::contains(range, *first));
        Some(AddressPool {
            name: pool["name"].as_str().unwrap_or_default().to_owned(),
            range,
            disabled: pool["spec"]["disabled"] == true,
            blocks: given.clone().count() as u64,
            given: given.map(|(_, given)| given).sum(),
        })
    });
    pools.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn blocks_count_for_the_pool_that_they_lie_in() {
        let pools = [
            json!({"name": "small", "spec": {"cidr": "10.1.0.0/24", "blockSize": 26}}),
            json!({"name": "six", "spec": {"cidr": "fd00:10::/64", "disabled": true}}),
            json!({"name": "nonsense", "spec": {"cidr": "10.1.0.0"}}),
        ];
        let given = |cidr: &str, allocations: Value| json!({"name": "b", "spec": {"cidr": cidr, "allocations": allocations}});
        let blocks = [
            given("10.1.0.64/26", json!([0, null, 1])),
            given("10.1.1.0/26", json!([0, 0, 0])),
            given("fd00:10::40/122", json!([null, 7])),
            given("10.1.0.128/26", json!([null])),
            json!({"name": "b", "spec": {"cidr": "10.1.0.0/26", "allocations": [1], "deleted": true}}),
        ];
        let all = trim(&pools, &blocks);
        let told: Vec<_> = all
            .iter()
            .map(|pool| (pool.name.as_str(), pool.disabled, pool.blocks, pool.given))
            .collect();
        assert_eq!(told, [("small", false, 2, 2), ("six", true, 1, 1)]);
    }
}
