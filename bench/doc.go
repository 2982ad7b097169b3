// Package bench measures Parley: the scenarios of `parley bench`, whose figures docs/performance.md and the README
// quote. Everything runs on one machine, in one run, and what counts are the ratios within it.
//
// The gateway, the bare broker it is compared with and the load run as processes of their own, as they would in
// production, but share the machine's cores.
package bench
