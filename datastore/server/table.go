package server

import (
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire/api"
)

// method is a row of the table of methods, with what is done for it.
type method = rest.Method[*call]

// handlers are what is done for methods.
type handlers map[api.Op]func(*call) (any, error)

// bind gives rows what is done for them. A row that nothing is done for is not offered.
func bind(rows []api.Method, tables ...handlers) (list []method) {
	for _, row := range rows {
		for _, t := range tables {
			if do, ok := t[row.Op]; ok {
				list = append(list, method{Method: row, Do: do})
			}
		}
	}
	return list
}

// methods are all methods of the server.
func methods() []method {
	return bind(api.Methods(), serverHandlers(), accessHandlers(), storeHandlers(), groupHandlers())
}

func serverHandlers() handlers {
	return handlers{
		api.Version:          getVersion,
		api.Ping:             getPing,
		api.ListRealms:       getDomains,
		api.ListNodes:        getNodes,
		api.NodeState:        nodeStatus,
		api.NodeSubscription: nodeSubscription,
		api.NodeIdentity:     nodeIdentity,
		api.ListTasks:        listTasks,
		api.TaskSubdirs:      taskSubdirs,
		api.TaskState:        taskStatus,
		api.TaskLog:          taskLog,
		api.StopTask:         stopTask,
		api.ListConfigured:   listConfigured,
		api.CreateDatastore:  createDatastore,
		api.GetConfigured:    getConfigured,
		api.SetConfigured:    setConfigured,
		api.RemoveDatastore:  removeDatastore,
		api.BackupUpgrade:    func(c *call) (any, error) { return c.server.backupUpgrade(c) },
		api.ReaderUpgrade:    func(c *call) (any, error) { return c.server.readerUpgrade(c) },
	}
}

func accessHandlers() handlers {
	return handlers{
		api.Login:           login,
		api.Logout:          logout,
		api.SetPassword:     setPassword,
		api.ExportAccess:    exportAccess,
		api.ImportAccess:    importAccess,
		api.ListUsers:       listUsers,
		api.CreateUser:      createUser,
		api.GetUser:         getUser,
		api.SetUser:         setUser,
		api.RemoveUser:      removeUser,
		api.ListTokens:      listTokens,
		api.GetToken:        getToken,
		api.CreateToken:     createToken,
		api.SetToken:        setToken,
		api.RemoveToken:     removeToken,
		api.ListACLs:        listACLs,
		api.SetACL:          setACL,
		api.ListRoles:       listRoles,
		api.ListPermissions: permissions,
		api.ListQuotas:      listQuotas,
		api.SetQuota:        setQuota,
		api.RemoveQuota:     removeQuota,
	}
}

// storeHandlers are about a datastore as a whole.
func storeHandlers() handlers {
	return handlers{
		api.ListDatastores:   listDatastores,
		api.DatastoreState:   datastoreStatus,
		api.ActiveOperations: activeOperations,
		api.AllUsage:         datastoreUsage,
		api.StartGC:          startCollection,
		api.LastGC:           collectionStatus,
		api.PruneDatastore:   pruneDatastore,
		api.Verify:           startVerify,
		api.ListNamespaces:   listNamespaces,
		api.CreateNamespace:  createNamespace,
		api.DeleteNamespace:  deleteNamespace,
	}
}

// groupHandlers are about what a namespace holds.
func groupHandlers() handlers {
	return handlers{
		api.ListGroups:      listGroups,
		api.DeleteGroup:     deleteGroup,
		api.ChangeOwner:     changeOwner,
		api.GetGroupNotes:   getGroupNotes,
		api.SetGroupNotes:   setGroupNotes,
		api.ListSnapshots:   listSnapshots,
		api.DeleteSnapshot:  deleteSnapshot,
		api.ListFiles:       listFiles,
		api.GetNotes:        getNotes,
		api.SetNotes:        setNotes,
		api.GetProtected:    getProtected,
		api.SetProtected:    setProtected,
		api.ListDeleted:     listDeleted,
		api.RestoreDeleted:  restoreDeleted,
		api.DestroyDeleted:  destroyDeleted,
		api.Download:        download,
		api.DownloadDecoded: downloadDecoded,
		api.UploadLog:       uploadLog,
		api.PruneGroup:      pruneGroup,
	}
}
