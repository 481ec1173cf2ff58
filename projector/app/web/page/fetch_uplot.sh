#!/usr/bin/env bash
# Prints the folder that holds uPlot, the page's chart library: UPLOT of the environment, or the pinned
# package from the npm registry, kept in the cache. Fails with one line when it cannot be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../../.."
. scripts/packages.sh
. scripts/provide.sh

UPLOT_PACKAGE=uplot@1.6.32
UPLOT_SHA512=KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==

# 160 kB; npm may wait for minutes where there is no network.
fetch_uplot() {
  local into=$1
  (cd "$into" && timeout 60 npm pack --loglevel=error --ignore-scripts "$UPLOT_PACKAGE" >npm.log 2>&1) || return
  is_pinned "$UPLOT_SHA512" "$into"/*.tgz || { say "$UPLOT_PACKAGE does not have the pinned integrity hash: not used"; return 1; }
  tar -xzf "$into"/*.tgz -C "$into" --no-same-owner package/dist/uPlot.iife.min.js package/dist/uPlot.min.css &&
    mv "$into"/package/dist/* "$into" && chmod 644 "$into"/uPlot.* && rm -rf "$into"/*.tgz "$into/package"
}

if [[ -n ${UPLOT:-} ]]; then
  [[ -f $UPLOT/uPlot.iife.min.js ]] || die "UPLOT=$UPLOT holds no uPlot.iife.min.js"
  realpath "$UPLOT"
elif [[ ! -d $(cache_dir)/uplot-1.6.32 ]] && ! command -v npm >/dev/null; then
  die "uPlot needs npm once; install it, then run 'meson setup --reconfigure'"
else
  cached uplot-1.6.32 fetch_uplot || die "'npm pack $UPLOT_PACKAGE' failed; mend that, then run 'meson setup --reconfigure'"
fi
