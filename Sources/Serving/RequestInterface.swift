import Hummingbird

/// The routes of the server and the members of requests that it knows, for programs that generate requests.
package enum RequestInterface {
    /// The method, the path in Hummingbird's notation and the place of the body's members of every route.
    package static let routes: [(method: String, path: String, place: String?)] =
        RouteTable(configuration: ServerConfiguration(servedModelName: "model"), slot: ModelSlot()).routes
        .map { ($0.method.rawValue, $0.pattern, $0.place?.rawValue) }

    /// Returns the names of all members at a place: those that are honoured, harmless or refused by name.
    ///
    /// - Parameter place: the raw value of a `FieldTable.Place`.
    /// - Returns: the names; none if there is no such place.
    package static func members(at place: String) -> [String] {
        guard let place = FieldTable.Place(rawValue: place) else { return [] }
        return FieldTable.rows.filter { $0.places.contains(place) }.flatMap(\.names)
    }
}
