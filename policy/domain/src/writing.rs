//! In which requests nodes are written: as few as possible, as each costs a way to xenstore and back.
//!
//! What the policy domain makes inherits the permissions of the directory that it is in, owner included. So a directory gets
//! the permissions of what is to be in it first, and its own when all of that is there.

use alloc::vec::Vec;

use crate::nodes::Node;
use runtime::DomId;

/// Owner and readers.
type Rights<'a> = (DomId, &'a [DomId]);

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Write a node's value.
    Write(&'a Node),
    /// Set the permissions of a path: owner and readers.
    Permissions(&'a str, DomId, &'a [DomId]),
}

fn rights(node: &Node) -> Rights<'_> {
    (node.owner, &node.readers)
}

/// Whether a node at `path` is in the directory `above`, or in one that is made on the way to it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'))
}

/// The node that a node at `path` inherits from: the nearest above it.
fn nearest(path: &str, nodes: &[Node]) -> Option<usize> {
    let above = nodes.iter().enumerate().filter(|(_, node)| is_below(path, &node.path));
    above.max_by_key(|(_, node)| node.path.len()).map(|(index, _)| index)
}

/// The requests for `nodes`, parents before children. What is at or below a path in `fresh` does not exist yet; of what
/// else exists the permissions are not known.
pub fn steps<'a>(nodes: &'a [Node], fresh: &[&str]) -> Vec<Step<'a>> {
    let is_fresh = |path: &str| fresh.iter().any(|root| *root == path || is_below(path, root));
    let above: Vec<Option<usize>> = nodes.iter().map(|node| nearest(&node.path, nodes)).collect();
    let is_new: Vec<bool> = nodes.iter().map(|node| is_fresh(&node.path)).collect();
    let mut steps = Vec::with_capacity(nodes.len() * 2);
    // What the nodes written so far have now, and those that do not have what they are to have yet.
    let mut have: Vec<Rights<'a>> = Vec::with_capacity(nodes.len());
    let mut owed: Vec<&Node> = Vec::new();
    for (index, (node, &fresh)) in nodes.iter().zip(&is_new).enumerate() {
        steps.push(Step::Write(node));
        let directory = above.get(index).copied().flatten().filter(|_| fresh);
        let inherited = directory.and_then(|directory| have.get(directory)).copied();
        let inside =
            nodes.iter().zip(&above).zip(&is_new).filter(|((_, above), fresh)| **above == Some(index) && **fresh);
        let wanted = most_common(inside.map(|((node, _), _)| rights(node))).unwrap_or(rights(node));
        if inherited != Some(wanted) {
            steps.push(Step::Permissions(&node.path, wanted.0, wanted.1));
        }
        if wanted != rights(node) {
            owed.push(node);
        }
        have.push(wanted);
    }
    steps.extend(owed.into_iter().map(|node| Step::Permissions(&node.path, node.owner, &node.readers)));
    steps
}

fn most_common<'a>(all: impl Iterator<Item = Rights<'a>>) -> Option<Rights<'a>> {
    let mut counts: Vec<(Rights<'a>, usize)> = Vec::new();
    for rights in all {
        match counts.iter_mut().find(|(known, _)| *known == rights) {
            Some((_, count)) => *count += 1,
            None => counts.push((rights, 1)),
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(rights, _)| rights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::{self, Ports};
    use alloc::string::String;
    use policy::table::Table;
    use std::collections::BTreeMap;

    fn demo() -> Table {
        policy::load("demo.toml", include_str!("../../demo.toml")).unwrap().table().clone()
    }

    /// A store in which the policy domain makes nodes.
    fn carry_out(steps: &[Step<'_>]) -> BTreeMap<String, (DomId, Vec<DomId>)> {
        let mut store = BTreeMap::<String, (DomId, Vec<DomId>)>::new();
        for step in steps {
            match *step {
                Step::Write(node) => {
                    let above = store.iter().filter(|(path, _)| is_below(&node.path, path));
                    let above = above.max_by_key(|(path, _)| path.len()).map(|(_, rights)| rights.clone());
                    let inherited = above.unwrap_or((DomId(0), Vec::new()));
                    store.entry(node.path.clone()).or_insert(inherited);
                }
                Step::Permissions(path, owner, readers) => {
                    *store.get_mut(path).expect("permissions of a node that is there") = (owner, readers.to_vec());
                }
            }
        }
        store
    }

    fn check(nodes: &[Node], fresh: &[&str], most: usize) {
        let steps = steps(nodes, fresh);
        let store = carry_out(&steps);
        for node in nodes {
            assert_eq!(store[&node.path], (node.owner, node.readers.clone()), "{}", node.path);
        }
        assert!(steps.len() <= most, "{} steps for {} nodes: {steps:#?}", steps.len(), nodes.len());
    }

    #[test]
    fn all_nodes_end_with_their_permissions_in_fewer_requests() {
        let table = demo();
        for (link, front, back) in table.links.iter().map(|link| (link, DomId(6), DomId(4))) {
            let Some(ends) = nodes::ends(link, front, back) else { continue };
            let nodes = nodes::link(&table, link, &ends, Some(3));
            check(&nodes, &[&ends.front_path, &ends.back_path], nodes.len() + 14);
            check(&nodes, &[], 2 * nodes.len());
        }
        let web = table.domain(table.find("web").unwrap()).unwrap();
        let home = nodes::home(web, DomId(6), Ports { store: Some(1), console: Some(2), ..Ports::default() });
        check(&home, &["/local/domain/6"], home.len() + 10);
    }

    #[test]
    fn a_path_that_only_begins_alike_is_not_fresh() {
        let table = demo();
        let web = table.domain(table.find("web").unwrap()).unwrap();
        let home = nodes::home(web, DomId(66), Ports::default());
        assert_eq!(steps(&home, &["/local/domain/6"]).len(), 2 * home.len());
    }
}
