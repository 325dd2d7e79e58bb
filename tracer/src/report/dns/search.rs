//! What search paths cost: a pod's queries for names that exist with another end only, told by the
//! workload, since that is where it is mended.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    super::{
        section::{Cell, Column, Said, Table, column, plural, share},
        whole::{exchanges, percent},
    },
    MOST,
};
use crate::model::{
    breakdown::Breakdown,
    cluster::Workload,
    search::Search,
    tally::{Kind, Who},
};

/// From this share on, what a search path wastes is worth mending.
const WASTE: f64 = 0.2;

/// Clients that sent fewer queries in vain than this are not told to mend their search path.
const FEW: u64 = 6;

const SEARCH: &[Column] = &[
    column("client", "client"),
    column("pods", "pods"),
    column("queries", "queries"),
    column("needed", "needed"),
    column("wasted", "wasted"),
    column("share", "share"),
    column("found", "found with"),
    column("fix", "fix"),
];

/// The pods of a workload; or one client alone, where nobody knows what it belongs to.
#[derive(Debug)]
struct Searcher<'a> {
    client: &'a Who,
    workload: Option<&'a Workload>,
    pods: u64,
    queries: u64,
    search: Search,
}

/// Who searches, those that waste most first.
fn searchers(breakdown: &Breakdown) -> Vec<Searcher<'_>> {
    let mut alike: BTreeMap<_, Searcher<'_>> = BTreeMap::new();
    for (client, search) in breakdown.searches.iter() {
        let workload = breakdown.workloads.get(client);
        let key = match (client, workload) {
            (Who::Pod { namespace, .. }, Some(workload)) => (None, Some((namespace, workload))),
            _ => (Some(client), None),
        };
        let counted = breakdown.clients.get(client).map_or(0, |tally| tally.count);
        let one = alike.entry(key).or_insert_with(|| Searcher {
            client,
            workload,
            pods: 0,
            queries: 0,
            search: Search::default(),
        });
        one.pods += 1;
        one.queries += counted.max(search.sent);
        one.search.merge(search);
    }
    let mut all: Vec<_> = alike
        .into_values()
        .filter(|one| one.search.wasted > 0)
        .collect();
    all.sort_by_key(|one| Reverse(one.search.wasted));
    all
}

/// What is wrong with search paths, and how it is mended.
pub(super) fn said(breakdown: &Breakdown) -> Vec<Said> {
    let all = searchers(breakdown);
    all.iter().filter_map(Searcher::said).collect()
}

impl Searcher<'_> {
    fn name(&self) -> String {
        match (self.client, self.workload) {
            (Who::Pod { namespace, .. }, Some(workload)) => {
                let kind = workload.kind.to_lowercase();
                format!("{namespace}/{kind}/{}", workload.name)
            }
            (client, _) => client.to_string(),
        }
    }

    fn said(&self) -> Option<Said> {
        let search = &self.search;
        if search.wasted < FEW || share(search.wasted, self.queries) < WASTE {
            return None;
        }
        let mut said = Said::bad(format!(
            "{} wastes {} of its {} on its search path",
            self.name(),
            percent(search.wasted, self.queries),
            exchanges(Kind::Dns, self.queries)
        ));
        let needed = search.sent - search.wasted;
        said.evidence.push(format!(
            "{} sent for names that were searched for, {needed} needed: {} a name",
            plural(search.sent, "query", "queries"),
            times(search.sent, needed)
        ));
        let mut won: Vec<_> = search.won.iter().collect();
        won.sort_by_key(|(_, count)| Reverse(**count));
        for (domain, count) in won.into_iter().take(4) {
            said.evidence.push(match &**domain {
                "" => format!("{count} found as they stand"),
                domain => format!("{count} found with {domain}"),
            });
        }
        said.remedy = self.fix();
        Some(said)
    }

    /// One line that ends most of the waste.
    ///
    /// 1. A name found as it stands that has a dot or more: `ndots` of as many dots.
    /// 2. One without any dot: the final dot alone can say that it is whole.
    /// 3. A name found through the path: ask for it in full.
    fn fix(&self) -> Option<String> {
        let search = &self.search;
        let bare = search.won.get("").copied().unwrap_or(0);
        let searched: u64 = search.won.values().sum::<u64>() - bare;
        match (&search.bare, &search.searched) {
            (Some((dots, _)), _) if bare >= searched && *dots > 0 => Some(self.set_ndots(*dots)),
            (Some((_, name)), _) if bare >= searched => {
                Some(format!("ask for `{name}.`, with the final dot"))
            }
            (_, Some((_, name))) => Some(format!(
                "ask for names in full and with the final dot, such as `{name}.`"
            )),
            _ => None,
        }
    }

    fn set_ndots(&self, dots: usize) -> String {
        match (self.client, self.workload) {
            (Who::Pod { namespace, .. }, Some(Workload { kind, name })) => {
                let template = format!(
                    r#"{{"spec":{{"template":{{"spec":{{"dnsConfig":{{"options":[{{"name":"ndots","value":"{dots}"}}]}}}}}}}}}}"#
                );
                let patch = match &**kind {
                    "CronJob" => format!(r#"{{"spec":{{"jobTemplate":{template}}}}}"#),
                    _ => template,
                };
                let kind = kind.to_lowercase();
                format!("kubectl -n {namespace} patch {kind} {name} --type merge -p '{patch}'")
            }
            (Who::Pod { namespace, name }, None) => format!(
                "in the workload of pod {name} in {namespace} set spec.template.spec.dnsConfig.options: [{{name: ndots, value: \"{dots}\"}}]"
            ),
            _ => format!("set options ndots:{dots} in its resolv.conf"),
        }
    }
}

/// `3.9`: how many times as many `all` are as `part`.
fn times(all: u64, part: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let times = all as f64 / part.max(1) as f64;
    format!("{times:.1}")
}

pub(super) fn table(breakdown: &Breakdown) -> Table {
    let rows = searchers(breakdown).into_iter().take(MOST).map(|one| {
        let won = one.search.won.iter().map(|(domain, count)| {
            let domain = match &**domain {
                "" => "the name as it stands",
                domain => domain,
            };
            (domain.to_owned(), *count)
        });
        let mut won: Vec<_> = won.collect();
        won.sort_by_key(|(_, count)| Reverse(*count));
        vec![
            one.name().into(),
            one.pods.into(),
            one.queries.into(),
            (one.queries - one.search.wasted).into(),
            one.search.wasted.into(),
            Cell::Share(share(one.search.wasted, one.queries)),
            Cell::Counts(won),
            one.fix().map_or(Cell::Nothing, Cell::Text),
        ]
    });
    Table {
        name: "search_paths",
        title: "workloads by the queries that their search path wastes",
        columns: SEARCH,
        rows: rows.collect(),
    }
}
