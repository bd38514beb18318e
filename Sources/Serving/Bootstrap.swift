import JSON

/// The members by which a router that posts a request to a prefill and to a decode server connects the two, as SGLang's
/// router does.
struct Bootstrap: Sendable, Equatable {
    /// The prefill server's address, for the decode server; without a port it has the usual one.
    let host: String
    let port: Int?
    /// The number by which both servers know the prompt.
    let room: UInt64
}

extension TextService {
    /// Returns the members for each of `count` answers; `nil` if the request has none. Each is one value for all, or a list
    /// of values, each for as many answers, in their order.
    ///
    /// - Throws: an error about the first member if this server exchanges keys with no other, or about one that is wrong.
    func bootstraps(of fields: RequestFields, count: Int) throws(RequestError) -> [Bootstrap]? {
        guard let name = Bootstrap.Member.allCases.first(where: { fields.value($0.rawValue) != nil })?.rawValue else {
            return nil
        }
        guard fields.value(KVTransferParams.name) == nil else {
            throw .invalid(name, "\(name) is not supported together with kv_transfer_params; give one of them")
        }
        guard transfers != nil else {
            throw .invalid(
                name,
                "\(name) is not supported: this server prefills and decodes by itself; start it with "
                    + "--disaggregation-mode, or the router without --pd-disaggregation", code: "unsupported_parameter")
        }
        let hosts = try fields.each(.host, count) { value in value.string.flatMap { $0.isEmpty ? nil : $0 } }
        let ports = try fields.each(.port, count) { value in
            value.wholeNumber.flatMap { (1...65_535).contains($0) ? $0 : nil }
        }
        let rooms = try fields.each(.room, count) { value in value.wholeNumber.flatMap(UInt64.init(exactly:)) }
        guard let hosts, let rooms else {
            let missing = (hosts == nil ? Bootstrap.Member.host : .room).rawValue
            throw .invalid(
                missing,
                "\(missing) is missing; a router that disaggregates gives both bootstrap_host and bootstrap_room")
        }
        return (0..<count).map { Bootstrap(host: hosts[$0]!, port: ports?[$0], room: rooms[$0]!) }
    }
}

extension Bootstrap {
    fileprivate enum Member: String, CaseIterable {
        case host = "bootstrap_host"
        case port = "bootstrap_port"
        case room = "bootstrap_room"

        var words: String {
            switch self {
            case .host: "the name or address of a prefill server"
            case .port: "a port, 1 to 65535, or null"
            case .room: "a number from 0 on"
            }
        }
    }
}

extension RequestFields {
    /// Returns a member's value for each answer. Only a port may be `null` in a list.
    fileprivate func each<Value>(
        _ member: Bootstrap.Member, _ count: Int, _ read: (JSONValue) -> Value?
    ) throws(RequestError) -> [Value?]? {
        let name = member.rawValue
        guard let value = value(name) else { return nil }
        let list = value.array ?? [value]
        guard !list.isEmpty, count % list.count == 0 else {
            throw .invalid(
                name, "\(name) has \(list.count) entries for \(count) answers; give one value, or one for each")
        }
        let found = list.map { $0.isNull ? nil : read($0) }
        for (element, value) in zip(list, found) where value == nil && !(member == .port && element.isNull) {
            throw .invalid(name, "\(name) must be \(member.words), or a list of such values")
        }
        return (0..<count).map { found[$0 * list.count / count] }
    }
}

extension [TextRequest] {
    /// Returns the requests with the servers that a router has named.
    func bootstrapped(_ bootstraps: [Bootstrap]?) -> [TextRequest] {
        guard let bootstraps else { return self }
        return zip(self, bootstraps).map { request, bootstrap in
            var request = request
            request.bootstrap = bootstrap
            return request
        }
    }
}
