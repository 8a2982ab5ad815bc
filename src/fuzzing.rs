//! Entry points of the fuzz targets to parsers that are private to their modules. Nothing else uses them.

use kube::config::Kubeconfig;

use crate::cluster::client::Connection;
use crate::schema::Kind;
use crate::shift::edit;

/// Compiles and evaluates a `--where` expression.
pub fn where_expression(text: &str) {
    crate::commands::tail::evaluate_where(text);
}

/// Interprets a kubeconfig, without its files and without running its plugins.
pub fn kubeconfig(text: &str) {
    let Ok(mut kubeconfig) = Kubeconfig::from_yaml(text) else { return };
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.certificate_authority = None;
    }
    let _ = Connection::default().interpret(kubeconfig);
}

/// Finds the objects of a manifest, and writes weights into them.
pub fn edit_weights(text: &str) {
    for kind in [Kind::VirtualService, Kind::HttpRoute, Kind::GrpcRoute] {
        if let Some(document) = edit::find_document(text, kind, "shop", "pay") {
            for weight in [0, 7] {
                let _ = edit::set_every_weight(text, &document, kind, weight);
            }
        }
    }
}
